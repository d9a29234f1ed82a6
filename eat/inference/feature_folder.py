"""A folder of features: written in chunks, joined at the end, resumable at any moment.

Rows are computed in chunks of fixed size, each a file of its own that appears under its
name only when it is complete. So chunks may be made by any process in any order, and
one that is there need not be made again. Joining them needs the memory of one chunk.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

FEATURES = "features.npy"
CLIPS = "clips.csv"
RECORD = "features.json"
CHUNKS = "chunks"


class FeatureFolder:
    """Features `[M, D]` of a manifest's clips, on their way or complete.

    Parameters
    ----------
    folder
        Where they are, or will be.
    num_clips
        Number M of rows.
    chunk_clips
        Rows of a chunk; the last one may have fewer.
    """

    def __init__(self, folder: str | Path, num_clips: int, chunk_clips: int) -> None:
        self.folder = Path(folder)
        self.num_clips = num_clips
        self.chunk_clips = chunk_clips

    @property
    def finished(self) -> bool:
        """Whether all is there and joined."""
        return (self.folder / FEATURES).exists()

    def chunks(self) -> range:
        """Numbers of all chunks."""
        return range(-(-self.num_clips // self.chunk_clips))

    def rows(self, chunk: int) -> range:
        """Rows of a chunk."""
        first = chunk * self.chunk_clips
        return range(first, min(first + self.chunk_clips, self.num_clips))

    def has(self, chunk: int) -> bool:
        """Whether a chunk is complete."""
        return self._path(chunk).exists()

    def differences(self, settings: Mapping[str, object]) -> list[str]:
        """What keeps features of these settings from being written here.

        Parameters
        ----------
        settings
            All that the numbers depend on, as plain JSON values.

        Returns
        -------
        list of str
            Such as ``pooling was cls, now mean``; empty for a new folder, or one whose
            features of these settings are complete or begun.
        """
        path = self.folder / RECORD
        if not path.exists():
            found = [
                name for name in (FEATURES, CLIPS) if (self.folder / name).exists()
            ]
            return [f"{name} without a {RECORD}" for name in found]
        if not self.finished and not any((self.folder / CHUNKS).glob("*.npz")):
            return []  # a start that failed must not bind the next one
        earlier = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return [
            f"{key} was {_short(earlier.get(key))}, now {_short(settings.get(key))}"
            for key in sorted(earlier.keys() | settings.keys())
            if earlier.get(key) != settings.get(key)
        ]

    def begin(self, settings: Mapping[str, object], **about: object) -> None:
        """Keep the settings, and what else is worth knowing, where none are kept yet.

        Parameters
        ----------
        settings
            See :meth:`differences`, which must have found none.
        **about
            Plain JSON values to stand beside them.
        """
        (self.folder / CHUNKS).mkdir(parents=True, exist_ok=True)
        if not any((self.folder / CHUNKS).glob("*.npz")):
            self._record({"settings": settings, **about})

    def write(
        self, chunk: int, features: np.ndarray, failures: Mapping[int, str]
    ) -> None:
        """Write a chunk.

        Parameters
        ----------
        chunk
            Its number.
        features
            `[m, D]` float32, a row for each of the chunk's; NaN where there is none.
        failures
            Why there is none, by row of the manifest.
        """
        rows, reasons = np.array([*failures], np.int64), np.array([*failures.values()])
        with _appearing(self._path(chunk)) as partial, open(partial, "wb") as file:
            np.savez(file, features=features, rows=rows, reasons=reasons.astype(str))
            file.flush()
            os.fsync(file.fileno())

    def join(self, ids: Iterable[str]) -> int:
        """Join all chunks, write the list of clips, remove the chunks.

        Parameters
        ----------
        ids
            Names of the M clips.

        Returns
        -------
        int
            How many clips have no features.
        """
        failures: dict[int, str] = {}
        path = self.folder / FEATURES
        with _appearing(path) as partial:
            # Not a memory map: where the disk is full, that would end in a SIGBUS.
            with open(partial, "wb") as file:
                for chunk in tqdm(self.chunks(), "joining", leave=False, disable=None):
                    features = self._read(chunk, failures)
                    if chunk == 0:
                        width = features.shape[1]
                        _write_header(file, (self.num_clips, width))
                    file.write(features.tobytes())
                os.fsync(file.fileno())
            self._write_clips(ids, failures)
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
            shape = {"clips": self.num_clips, "width": width}
            self._record({**record, **shape, "unreadable": len(failures)})
            # features.npy, which says that all is complete, appears last.
        self.tidy()
        return len(failures)

    def tidy(self) -> None:
        """Remove the chunks of features that are complete."""
        if self.finished:
            shutil.rmtree(self.folder / CHUNKS, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self.folder / CHUNKS / f"{chunk:07d}.npz"

    def _read(self, chunk: int, failures: dict[int, str]) -> np.ndarray:
        """Features of a chunk; its failures are added to those given."""
        with np.load(self._path(chunk)) as arrays:
            rows, reasons = arrays["rows"].tolist(), arrays["reasons"].tolist()
            failures.update(zip(rows, reasons, strict=True))
            return arrays["features"]

    def _write_clips(self, ids: Iterable[str], failures: Mapping[int, str]) -> None:
        with (
            _appearing(self.folder / CLIPS) as partial,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("row", "id", "unreadable"))
            for row, clip in enumerate(ids):
                writer.writerow((row, clip, failures.get(row, "")))

    def _record(self, record: Mapping[str, object]) -> None:
        with _appearing(self.folder / RECORD) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Give a file beside, which takes the name of this one once it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)


def _short(value: object) -> str:
    """A setting for one line of an error; checksums are long."""
    return str(value)[:12]
