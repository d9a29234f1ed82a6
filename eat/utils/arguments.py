"""Arguments of command lines: numbers in a range, and errors that name the option."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eat.errors import EATError, ExperimentError


def integer(low: int, high: int = 1_000_000_000) -> Callable[[str], int]:
    """Return an argparse type of the integers from `low` to `high`."""

    def parse(text: str) -> int:
        """Return the integer; refuse what is none, or out of range."""
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            limits = f"{low} to {high}" if high < 1_000_000_000 else f"at least {low}"
            raise argparse.ArgumentTypeError(f"{text!r} (must be an integer, {limits})")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type of the numbers from `low` to `high`."""

    def parse(text: str) -> float:
        """Return the number; refuse what is none, or out of range."""
        try:
            value = float(text)
        except ValueError:
            value = high + 1
        if not low <= value <= high:  # not of NaN
            raise argparse.ArgumentTypeError(
                f"{text!r} (must be a number from {low:g} to {high:g})"
            )
        return value

    return parse


def path(text: str) -> Path:
    """Parse the path of an output; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def layer_numbers(text: str) -> int | list[int] | str:
    """Parse an index, a list of them or ``all``."""
    if text == "all":
        return text
    try:
        layers = [int(layer) for layer in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' (an index such as 7, a list such as 4,7, or all)"
        ) from None
    return layers if "," in text else layers[0]


@contextmanager
def option_errors() -> Iterator[None]:
    """Turn the `ValueError` of an option's value into an `ExperimentError`."""
    try:
        yield
    except EATError:  # of a file, for example
        raise
    except ValueError as error:
        raise ExperimentError(f"--{error}") from None
