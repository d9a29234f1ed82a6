"""A manifest of millions of rows in a few Arrow columns.

Reading a Python object counts a reference in it, which gives each forked data worker
its own copy of every memory page with objects: 0.8 GB per worker for the two million
clips of AudioSet. The columns of a large manifest are those of a memory-mapped file,
see `eat.data.arrow_file`, which all ranks and workers share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eat.data.arrow_file import arrow_file, read_description, text_digest


class CompactStrings:
    """Many strings in an Arrow column; `sha256` is that of all of them."""

    def __init__(self, column: pa.ChunkedArray, sha256: str) -> None:
        # Bytes, as names of files may be no UTF-8.
        chunks = [chunk.view(pa.binary()) for chunk in column.chunks]
        self.column = pa.chunked_array(chunks, pa.binary())
        self.sha256 = sha256

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> str:
        return self.column[index].as_py().decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            for text in chunk.to_pylist():
                yield text.decode(errors="surrogateescape")

    def any_starts_with(self, prefix: str) -> bool:
        """Return whether any of the strings starts with a prefix."""
        found = (pc.starts_with(chunk, prefix) for chunk in self.column.chunks)
        return any(pc.any(chunk).as_py() for chunk in found)


def compact(texts: Iterable[str]) -> CompactStrings:
    """Return strings, in which there are no zero bytes, as a column."""
    encoded = [text.encode(errors="surrogateescape") for text in texts]
    column = pa.chunked_array(pa.array(encoded, pa.binary()))
    digest = hashlib.sha256()
    for chunk in column.chunks:
        text_digest(digest, chunk)
    return CompactStrings(column, digest.hexdigest())


class CompactLabels:
    """The label ids of each clip, joined by ``;``; `sha256` is that of the manifest's.

    They are stored as numbers, in a column of lists, of the ids in `names`.
    """

    def __init__(
        self, column: pa.ChunkedArray, names: Sequence[str], sha256: str
    ) -> None:
        self.column = column
        self.names = names
        self.sha256 = sha256

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> str:
        return self._join(self.column[index].as_py())

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            yield from map(self._join, chunk.to_pylist())

    def codes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the labels of clips, joined, and how many each has.

        Takes memory for all rows from the first to the last.
        """
        first = int(rows.min(initial=len(self)))
        last = int(rows.max(initial=first - 1))
        block = self.column.slice(first, last + 1 - first).combine_chunks()
        if len(rows) < len(block) or (np.diff(rows) != 1).any():
            block = block.take(pa.array(rows - first))
        return block.flatten().to_numpy(), block.value_lengths().to_numpy()

    def find_several(self) -> int | None:
        """Return the first clip with several labels; None if there is none."""
        first = 0
        for chunk in self.column.chunks:
            several = np.flatnonzero(chunk.value_lengths().to_numpy() > 1)
            if len(several):
                return first + int(several[0])
            first += len(chunk)
        return None

    def _join(self, codes: list[int]) -> str:
        return ";".join([self.names[code] for code in codes])


class CompactClips:
    """The `ids`, paths (`wavs`) and joined label ids (`labels`) of clips."""

    def __init__(
        self,
        ids: CompactStrings,
        wavs: CompactStrings,
        labels: CompactStrings | CompactLabels,
    ) -> None:
        self.ids, self.wavs, self.labels = ids, wavs, labels

    def __len__(self) -> int:
        return len(self.ids)


class CompactManifest(CompactClips):
    """The clips of a manifest.

    Further columns are ignored. Raises `ManifestError` if the file is missing, has no
    clips, lacks a column, or a line is malformed or has the id of another.
    """

    labels: CompactLabels

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._open(arrow_file(Path(path)))

    def _open(self, source: Path | pa.Buffer) -> None:
        """Open an Arrow file, or the content of one."""
        self._source = source
        mapped = pa.memory_map(str(source)) if isinstance(source, Path) else source
        reader = pa.ipc.open_file(mapped)
        made, table = read_description(reader), reader.read_all()
        ids, wavs, labels = (made["SHA-256"][name] for name in table.column_names)
        super().__init__(
            CompactStrings(table["ID"], ids),
            CompactStrings(table["wav"], wavs),
            CompactLabels(table["labels"], made["labels"], labels),
        )

    def __reduce__(self) -> tuple:
        """Leave for a data worker, which maps the same file."""
        return _opened, (self._source,)


def _opened(source: Path | pa.Buffer) -> CompactManifest:
    manifest = CompactManifest.__new__(CompactManifest)
    manifest._open(source)
    return manifest
