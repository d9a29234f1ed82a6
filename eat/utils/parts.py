"""Independent jobs that share a task without communicating, as a job array does.

Each does its share and leaves results that others can see; whichever finds all of them
joins them. Who does what follows from numbers alone, so that any part may be run again,
at the same time as others, or with another number of parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eat.utils.arguments import integer


class Part(NamedTuple):
    """Part `number` of `total`; part 0 has no share and only joins what others did."""

    number: int
    total: int

    def share(self, items: Sequence) -> Sequence:
        """Return the items of this part, every `total`-th one."""
        return items[self.number - 1 :: self.total] if self.number else items[:0]

    def among(self, rank: int, ranks: int) -> Part:
        """Return the part of one of several processes that do this part together."""
        number = (self.number - 1) * ranks + rank + 1 if self.number else 0
        return Part(number, self.total * ranks)

    def missing(self, items: Iterable[int]) -> str:
        """Return the parts that have not done items, given by number, and the remedy.

        The text is empty if there are no such items.
        """
        parts = sorted({item % self.total + 1 for item in items})
        if not parts:
            return ""
        names = f"parts {ranges(parts)}" if len(parts) > 1 else f"part {parts[0]}"
        verb = "are" if len(parts) > 1 else "is"
        return (
            f"{names} of {self.total} {verb} missing (run the same command with "
            f"--part {parts[0]}/{self.total})"
        )


WHOLE = Part(1, 1)


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ``sbatch --array`` takes them, such as 1,3,5-9."""
    texts: list[str] = []
    start = 0
    for i, number in enumerate(numbers, 1):
        if i == len(numbers) or numbers[i] != number + 1:
            run = numbers[start:i]
            texts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
            start = i
    return ",".join(texts)


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--part i/N`` and ``--merge N``; both are a `Part` called ``part``."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--part", type=_part, default=WHOLE, metavar="i/N", help="do part i of N")
    what = "join what N parts did; an error names those that are missing"
    add("--merge", type=_merge, dest="part", metavar="N", help=what)


def _part(text: str) -> Part:
    try:
        number, total = map(integer(1), text.split("/"))
    except (ValueError, argparse.ArgumentTypeError):
        number = total = 0
    if not 1 <= number <= total:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of 1/N to N/N")
    return Part(number, total)


def _merge(text: str) -> Part:
    return Part(0, integer(1)(text))
