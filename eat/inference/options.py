"""Checks of options that several functions take."""

from __future__ import annotations

from collections.abc import Sequence


def choose(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ValueError` if a value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} '{value}': choose from {list(choices)}")
