"""A manifest of millions of rows in a few flat arrays.

Python objects cost a forked data worker a copy of every page they lie in as soon as it
reads them, since reading counts references: 0.8 GB a worker for the two million clips
of AudioSet. Arrays are shared by all workers, and take a fifth of the memory.
"""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eat.data.manifest import COLUMNS
from eat.errors import ManifestError


class CompactStrings(Sequence[str]):
    """Many strings as one block of bytes.

    Parameters
    ----------
    block : bytes or bytearray
        All strings in UTF-8, one after the other.
    ends : numpy.ndarray
        Where each ends, int64.
    """

    def __init__(self, block: bytes | bytearray, ends: np.ndarray) -> None:
        self.block = block
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index > 0 else 0
        return self.block[start : int(self.ends[index])].decode()


class _Packer:
    """Collects strings."""

    def __init__(self) -> None:
        self.block, self.ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        self.block += text.encode()
        self.ends.append(len(self.block))

    def packed(self) -> CompactStrings:
        return CompactStrings(self.block, np.frombuffer(self.ends, np.int64))


class CompactManifest:
    """Ids, paths and labels of a manifest's clips.

    Parameters
    ----------
    path : str or PathLike
        CSV file as `eat.data.manifest.write_manifest` writes it; further columns are
        left aside.

    Attributes
    ----------
    ids, wavs : CompactStrings
        Name and path of each clip.
    labels : CompactStrings
        Label ids of each clip, joined by ``;``.

    Raises
    ------
    ManifestError
        If the file is missing, has no clips, lacks a column, or a line is malformed or
        names a clip again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        ids, wavs, labels, hashes = _Packer(), _Packer(), _Packer(), array("q")
        for clip, wav, label_ids in _rows(Path(path)):
            ids.add(clip)
            wavs.add(wav)
            labels.add(label_ids)
            hashes.append(hash(clip))
        if not hashes:
            raise ManifestError(
                f"{path}: no clips in it (run the corpus's prepare script again)"
            )
        self.ids, self.wavs = ids.packed(), wavs.packed()
        self.labels = labels.packed()
        _refuse_doubles(path, self.ids, np.frombuffer(hashes, np.int64))

    def __len__(self) -> int:
        return len(self.ids)


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, wav and labels of each clip."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = next(reader, [])
            if not set(COLUMNS) <= set(header):
                raise ManifestError(
                    f"{path}: lacks some of the columns {','.join(COLUMNS)} "
                    "(run the corpus's prepare script again)"
                )
            clip, wav, labels = map(header.index, ("ID", "wav", "labels"))
            for row in reader:
                if len(row) != len(header):
                    raise ManifestError(
                        f"{path}: line {reader.line_num} has {len(row)} fields, not "
                        f"{len(header)} (run the corpus's prepare script again)"
                    )
                yield row[clip], row[wav], row[labels]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path}: cannot be read ({error}; run the corpus's prepare script)"
        ) from None


def _refuse_doubles(
    path: str | os.PathLike[str], ids: CompactStrings, hashes: np.ndarray
) -> None:
    """Raise if two clips have one id; hashes find them without a set of two million."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for one, other in zip(order[same], order[same + 1], strict=True):
        if ids[one] == ids[other]:
            raise ManifestError(
                f"{path}: the clip '{ids[one]}' stands in it twice "
                "(run the corpus's prepare script again)"
            )
