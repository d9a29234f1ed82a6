"""Changed settings are described briefly."""

from eat.utils.settings_diff import describe_changes


def test_changes_are_described_briefly():
    earlier = {"a": 1, "b": "x", "c": 3, "d": 4, "nested": {"a": 1}}
    current = {"a": 2, "b": "x" * 64, "c": 3.5, "d": 5, "nested": {"a": 2}}
    described = "a was 1, now 2, b was x, now xxxxxxxxxxxx..., c was 3, now 3.5"
    assert describe_changes(earlier, current) == described
    assert describe_changes(earlier, current, limit=1) == "a was 1, now 2"
    assert describe_changes(earlier, earlier) == ""


def test_nested_values_count_where_no_plain_one_differs():
    described = describe_changes({"nested": {"a": 1}}, {"nested": {"a": 2}})
    assert described == "nested was {'a': 1}, now {'a': 2}"


def test_added_and_removed_settings():
    assert (
        describe_changes({"a": 1}, {"b": 2}) == "a was 1, now None, b was None, now 2"
    )
