"""Average precision by class, in the official files' form to the byte."""

import math

import pytest

from eat.evaluation.per_class import read_class_ap, write_class_ap

# The first lines of an official file, as bytes.
OFFICIAL = (
    b"Class                                              AP\n"
    b"Speech                                             0.8016\n"
    b"Male speech, man speaking                          0.0856\n"
    b"Chirp, tweet                                       0.5000\n"
)


def test_official_text_is_written_back_byte_by_byte(tmp_path):
    (tmp_path / "official.txt").write_bytes(OFFICIAL)
    found = read_class_ap(tmp_path / "official.txt")
    assert found == {
        "Speech": 0.8016,
        "Male speech, man speaking": 0.0856,
        "Chirp, tweet": 0.5,
    }
    write_class_ap(tmp_path / "ours.txt", list(found), list(found.values()))
    assert (tmp_path / "ours.txt").read_bytes() == OFFICIAL


def test_four_decimals_order_nan_and_long_names(tmp_path):
    path, long = tmp_path / "class_ap.txt", "a name of more than fifty letters, " * 2
    write_class_ap(path, ["b", "a", long.strip()], [0.123456, math.nan, 1.0])
    found = read_class_ap(path)
    assert list(found) == ["b", "a", long.strip()]
    assert found["b"] == 0.1235 and math.isnan(found["a"]) and found[long.strip()] == 1


def test_names_and_values_must_go_together(tmp_path):
    with pytest.raises(ValueError):
        write_class_ap(tmp_path / "x.txt", ["a", "b"], [0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is not 'Class ... AP'"),
        ("Speech 0.5\n", "its first line is not 'Class ... AP'"),
        ("Class AP\nSpeech 0.5\nMusic high\n", "line 3 is 'Music high', not a class"),
    ],
)
def test_other_files_are_refused_with_their_name(tmp_path, text, message):
    path = tmp_path / "other.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_class_ap(path)
    assert str(path) in str(error.value)
