"""Recordings with the same content under several names."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path

from own_data_splits import Labeled

from eat.utils.files import sha256_file

logger = logging.getLogger(__name__)

_SAMPLE = 4096  # bytes


def _middle(path: Path) -> bytes:
    """Return the checksum of some bytes in the middle of a file."""
    with open(path, "rb") as file:
        file.seek(max(0, (os.fstat(file.fileno()).st_size - _SAMPLE) // 2))
        return hashlib.sha256(file.read(_SAMPLE)).digest()


def find_copies(data_folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return, for each file that is a copy of others, the first of them.

    Only files of equal size are opened, and only those read in full whose middles are
    equal. Files that cannot be read have no copies.
    """
    checks: tuple[Callable[[Path], Hashable], ...] = (
        lambda path: path.stat().st_size,
        _middle,
        sha256_file,
    )
    groups = [sorted(files)]
    for check in checks:
        alike: dict[Hashable, list[str]] = defaultdict(list)
        for number, group in enumerate(groups):
            for file in group:
                try:
                    alike[number, check(data_folder / file)].append(file)
                except OSError:
                    continue
        groups = [group for group in alike.values() if len(group) > 1]
    return {file: group[0] for group in groups for file in group[1:]}


def warn_about_copies(labeled: Mapping[str, Labeled], copies: dict[str, str]) -> None:
    """Warn about equal recordings, above all those in several splits or classes."""
    groups: dict[str, list[str]] = defaultdict(list)
    for file, first in copies.items():
        groups[first].append(file)
    apart: list[str] = []
    differ: list[str] = []
    for first, others in groups.items():
        members = [labeled[file] for file in (first, *others) if file in labeled]
        pair = f"{first} and {others[0]}"
        if len({(line.split, line.fold) for line in members}) > 1:
            apart.append(pair)
        if len({frozenset(line.labels) for line in members}) > 1:
            differ.append(pair)
    for kind, pairs in (
        ("in several splits or folds, which inflates scores", apart),
        ("with different labels", differ),
    ):
        if pairs:
            line = "%d recordings have copies %s, e.g. %s"
            logger.warning(line, len(pairs), kind, pairs[0])
    if copies and not (apart or differ):
        first = next(iter(copies))
        line = "%d recordings are copies of others, e.g. %s of %s"
        logger.info(line, len(copies), first, copies[first])
