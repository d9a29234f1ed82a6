"""The files that features are written to, one clip after the other."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO
from urllib.parse import quote

import numpy as np

from eat.inference.feature_chunk import ClipFeatures

ROW_GROUP_BYTES = 2**26  # of a Parquet file, and its memory
FRAME_FILES = "features"  # folder of the files of an `ArrayFolder`


class FeatureWriter(Protocol):
    """Writes the features of one clip after the other."""

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write those of the next clip, of which the id is given; None if it failed."""


class ArrayWriter:
    """One array ``.npy`` `[M, ...]`, a row for each clip; NaN if it failed."""

    def __init__(self, file: BinaryIO, clips: int, shape: Sequence[int]) -> None:
        self._file = file
        self._missing = np.full(shape, np.nan, np.float32)
        whole = {"descr": "<f4", "fortran_order": False, "shape": (clips, *shape)}
        np.lib.format.write_array_header_1_0(file, whole)

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write a row."""
        values = self._missing if features is None else features.values
        self._file.write(values.tobytes())


Row = tuple[list, np.ndarray]  # the first columns, and the features


class Rows:
    """Rows of a table: clip, layer if there are several, start, end, features `[D]`."""

    def __init__(self, layers: Sequence[int] | None) -> None:
        self._layers = layers
        layer = [] if layers is None else ["layer"]
        self.names = ["path", *layer, "start", "end"]

    def of(self, clip: str, features: ClipFeatures) -> Iterator[Row]:
        """Yield the rows of a clip."""
        for values, (start, end) in zip(*features, strict=True):
            if self._layers is None:
                yield [clip, start.item(), end.item()], values
            else:
                for layer, of_layer in zip(self._layers, values, strict=True):
                    yield [clip, layer, start.item(), end.item()], of_layer


class CSVWriter:
    """A table with the features in columns ``f0``, ``f1`` ..."""

    def __init__(self, file: TextIO, rows: Rows, width: int) -> None:
        self._rows = rows
        self._csv = csv.writer(file, lineterminator="\n")
        self._csv.writerow([*rows.names, *(f"f{i}" for i in range(width))])

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write the rows of a clip, none if it failed."""
        for columns, values in self._rows.of(clip, features) if features else ():
            self._csv.writerow([*columns, *map(str, values)])


class JSONLinesWriter:
    """One JSON object per line, with the features as a list."""

    def __init__(self, file: TextIO, rows: Rows) -> None:
        self._file = file
        self._rows = rows

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write the lines of a clip, none if it failed."""
        for columns, values in self._rows.of(clip, features) if features else ():
            line: dict[str, Any] = dict(zip(self._rows.names, columns, strict=True))
            # The shortest digits that give the same float32.
            line["features"] = [float(str(value)) for value in values]
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


class ParquetWriter:
    """A Parquet file with a column ``features``, a list of fixed size."""

    def __init__(self, path: Path, rows: Rows, width: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._rows = rows
        self._width = width
        kinds = {"path": pa.string(), "layer": pa.int32()}
        fields = [(name, kinds.get(name, pa.float64())) for name in rows.names]
        features = ("features", pa.list_(pa.float32(), width))
        self._schema = pa.schema([*fields, features])
        # Random digits: neither a dictionary nor compression would make them smaller.
        self._file = pq.ParquetWriter(
            path,
            self._schema,
            compression="none",
            use_dictionary=["path"],
            write_statistics=["path"],
        )
        self._pending: list[Row] = []

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write the rows of a clip, none if it failed."""
        if features:
            self._pending += self._rows.of(clip, features)
        if len(self._pending) * self._width * 4 >= ROW_GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        columns, values = zip(*self._pending, strict=True)
        arrays = [pa.array(column) for column in zip(*columns, strict=True)]
        flat = pa.array(np.concatenate(values))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, self._width))
        table = pa.Table.from_arrays(arrays, names=self._schema.names)
        self._file.write_table(table.cast(self._schema))
        self._pending.clear()


class ArrayFolder:
    """A file ``.npy`` `[T, D]` for each clip, or `[L, T, D]`, and a table of times.

    The table has the columns path, index, start, end.
    """

    def __init__(self, folder: Path, table: TextIO) -> None:
        self._folder = folder
        self._csv = csv.writer(table, lineterminator="\n")
        self._csv.writerow(("path", "index", "start", "end"))

    def add(self, clip: str, features: ClipFeatures | None) -> None:
        """Write the file of a clip, and its rows in the table."""
        if features is None:
            return
        path = self._folder / file_name(clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.moveaxis(features.values, 0, -2))
        for index, (start, end) in enumerate(features.times.tolist()):
            self._csv.writerow((clip, index, start, end))


def file_name(clip: str) -> str:
    """Return the name of a clip's file in its folder: the id and ``.npy``.

    An id that would lead out of the folder has its special characters escaped.
    """
    plain = os.path.normpath(clip) == clip and not os.path.isabs(clip)
    return f"{clip if plain and clip[:2] != '..' else quote(clip, safe='')}.npy"


@contextmanager
def open_writer(
    path: Path,
    temporary: Path,
    clips: int,
    shape: Sequence[int],
    layers: Sequence[int] | None,
) -> Iterator[FeatureWriter]:
    """Open the writer for a path: by its suffix, or a folder's table of frames.

    Parameters
    ----------
    path
        The file that is to be made.
    temporary
        Where it is written.
    clips
        Number of clips.
    shape
        Of each part's features: `[D]`, or `[L, D]`.
    layers
        The L layers; None if only one was asked for, without an axis.
    """
    rows, width, suffix = Rows(layers), shape[-1], path.suffix.lower()
    if suffix == ".npy":
        # Not a memory map, where a full disk would end in a SIGBUS.
        with open(temporary, "wb") as file:
            yield ArrayWriter(file, clips, shape)
        return
    if suffix == ".parquet":
        parquet = ParquetWriter(temporary, rows, width)
        yield parquet
        parquet.close()
        return
    with open(
        temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
    ) as text:
        if suffix == ".jsonl":
            yield JSONLinesWriter(text, rows)
        elif path.name == "frames.csv":
            yield ArrayFolder(path.parent / FRAME_FILES, text)
        else:
            yield CSVWriter(text, rows, width)
