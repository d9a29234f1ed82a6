"""Checks of options that several functions take."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real


def choose(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ValueError` if a value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} '{value}': choose from {list(choices)}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise `ValueError` unless a value is a number from `low` to `high`."""
    if not (isinstance(value, Real) and low <= float(value) <= high):
        raise ValueError(f"{name} {value!r}: must be a number from {low} to {high}")


def check_integer(name: str, value: object, low: int) -> None:
    """Raise `ValueError` unless a value is an integer, at least `low`."""
    if not (isinstance(value, Integral) and int(value) >= low):
        raise ValueError(f"{name} {value!r}: must be an integer, at least {low}")
