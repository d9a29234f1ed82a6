"""A manifest of millions of rows in a few flat arrays.

Reading a Python object counts a reference in it, which gives each forked data worker
its own copy of every memory page with objects: 0.8 GB per worker for the two million
clips of AudioSet. Arrays are shared by all workers and need a fifth of the memory.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from eat.data.manifest import COLUMNS
from eat.data.tables import read_table
from eat.errors import ManifestError

_REMEDY = "run the corpus's prepare script again"


class CompactStrings:
    """Many strings in one block of UTF-8 bytes; `ends` (int64) is where each ends."""

    def __init__(self, block: bytes | bytearray, ends: np.ndarray) -> None:
        self.block = block
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index > 0 else 0
        text = self.block[start : int(self.ends[index])]
        return text.decode(errors="surrogateescape")  # names of files may be no UTF-8

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


class _Builder:
    """Collects strings."""

    def __init__(self) -> None:
        self.block, self.ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        """Append a string."""
        self.block += text.encode(errors="surrogateescape")
        self.ends.append(len(self.block))

    def build(self) -> CompactStrings:
        """Return the strings added so far."""
        return CompactStrings(self.block, np.frombuffer(self.ends, np.int64))


def compact(texts: Iterable[str]) -> CompactStrings:
    """Return strings in one block."""
    builder = _Builder()
    for text in texts:
        builder.add(text)
    return builder.build()


class CompactClips:
    """The `ids`, paths (`wavs`) and joined label ids (`labels`) of clips."""

    def __init__(
        self, ids: CompactStrings, wavs: CompactStrings, labels: CompactStrings
    ) -> None:
        self.ids, self.wavs, self.labels = ids, wavs, labels

    def __len__(self) -> int:
        return len(self.ids)


class CompactManifest(CompactClips):
    """The clips of a manifest.

    Further columns are ignored. Raises `ManifestError` if the file is missing, has no
    clips, lacks a column, or a line is malformed or has the id of another.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        ids, wavs, labels, hashes = _Builder(), _Builder(), _Builder(), array("q")
        for clip, wav, label_ids in _rows(Path(path)):
            ids.add(clip)
            wavs.add(wav)
            labels.add(label_ids)
            hashes.append(hash(clip))
        if not hashes:
            raise ManifestError(f"{path}: no clips in it ({_REMEDY})")
        super().__init__(ids.build(), wavs.build(), labels.build())
        _check_unique(path, self.ids, np.frombuffer(hashes, np.int64))


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, wav and labels of each clip."""
    for line, row in read_table(path, COLUMNS, exact=("ID", "wav"), remedy=_REMEDY):
        clip, _, wav, labels = row.values()
        if not clip or not wav:
            raise ManifestError(f"{path}: line {line} has no ID or no wav ({_REMEDY})")
        yield clip, wav, labels


def _check_unique(
    path: str | os.PathLike[str], ids: CompactStrings, hashes: np.ndarray
) -> None:
    """Raise if two clips have the same id; sorted hashes need less memory than sets."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for one, other in zip(order[same], order[same + 1], strict=True):
        if ids[one] == ids[other]:
            raise ManifestError(f"{path}: clip '{ids[one]}' occurs twice ({_REMEDY})")
