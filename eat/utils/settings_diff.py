"""What differs between two sets of settings, in a few words for an error message."""

from __future__ import annotations

from collections.abc import Mapping

MAX_CHARACTERS = 64  # of a value; a checksum is cut to its first SHORT characters
SHORT = 12


def describe_changes(
    earlier: Mapping[str, object], current: Mapping[str, object], limit: int = 3
) -> str:
    """Return the differences, such as ``lr was 0.1, now 0.2``; empty if there are none.

    At most `limit` settings are named; nested ones only if no plain value differs,
    since the objects of a YAML file repeat what they refer to.
    """
    keys = sorted(earlier.keys() | current.keys())
    changed = [key for key in keys if earlier.get(key) != current.get(key)]
    plain = [key for key in changed if not isinstance(current.get(key), dict | list)]
    return ", ".join(
        f"{key} was {_shorten(earlier.get(key))}, now {_shorten(current.get(key))}"
        for key in (plain or changed)[:limit]
    )


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) < MAX_CHARACTERS else f"{text[:SHORT]}..."
