"""A folder of features: chunks while they are computed, one array at the end."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from eat.errors import ExperimentError
from eat.utils.files import atomic_open, atomic_path, write_json
from eat.utils.settings_diff import describe_changes

logger = logging.getLogger(__name__)

FEATURES = "features.npy"
CLIPS = "clips.csv"
RECORD = "features.json"
CHUNKS = "chunks"


class _Chunk(NamedTuple):
    """Features `[m, D]` of m rows; reasons and warnings by row of the manifest."""

    features: np.ndarray
    failures: dict[int, str]
    warnings: dict[int, str]


class FeatureFolder:
    """Features `[M, D]` of a manifest's M clips, complete or in progress.

    Each chunk has `chunk_clips` rows; the last one may have fewer. D is `width`.
    """

    def __init__(
        self, folder: str | Path, num_clips: int, chunk_clips: int, width: int
    ) -> None:
        self.folder = Path(folder)
        self.num_clips = num_clips
        self.chunk_clips = chunk_clips
        self.width = width

    @property
    def finished(self) -> bool:
        """Whether all chunks have been computed and joined."""
        return (self.folder / FEATURES).exists()

    def chunks(self) -> range:
        """Return the numbers of all chunks."""
        return range(-(-self.num_clips // self.chunk_clips))

    def rows(self, chunk: int) -> range:
        """Return the rows of a chunk."""
        first = chunk * self.chunk_clips
        return range(first, min(first + self.chunk_clips, self.num_clips))

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is complete; a damaged one must be computed again."""
        path = self._path(chunk)
        if not path.exists():
            return False
        if self._read(chunk) is None:
            logger.warning("%s: damaged, computed again", path)
            return False
        return True

    def conflict(self, settings: Mapping[str, object]) -> str:
        """Return why features with these settings cannot be written here.

        The settings are all that the numbers depend on, as JSON values. The answer is
        for instance ``pooling was cls, now mean``; it is empty if the folder is new or
        contains features with these settings, complete or in progress.

        Raises
        ------
        ExperimentError
            If the folder's files are damaged.
        """
        path = self.folder / RECORD
        if not path.exists():
            found = [n for n in (FEATURES, CLIPS) if (self.folder / n).exists()]
            return f"{found[0]} without a {RECORD}" if found else ""
        if not self.finished and not self._any_chunk():
            return ""  # nothing was computed: a failed start must not fix the settings
        changes = describe_changes(self._record()["settings"], settings)
        if self.finished and not changes:
            self._check_features()
        return changes

    def start(self, settings: Mapping[str, object], **provenance: object) -> None:
        """Record the settings and further JSON values, unless a chunk exists."""
        (self.folder / CHUNKS).mkdir(parents=True, exist_ok=True)
        if not self._any_chunk():
            write_json(self.folder / RECORD, {"settings": settings, **provenance})

    def write(
        self,
        chunk: int,
        features: np.ndarray,
        failures: Mapping[int, str],
        warnings: Mapping[int, str],
    ) -> None:
        """Write the features `[m, D]` of a chunk's m rows, float32.

        They are NaN for the clips in `failures`, and finite for all others. Failures
        and warnings are reasons by row of the manifest.
        """
        path = self._path(chunk)
        with atomic_path(path, sync=True) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                features=features,
                rows=np.array([*failures], np.int64),
                reasons=np.array([*failures.values()], str),
                warned_rows=np.array([*warnings], np.int64),
                warnings=np.array([*warnings.values()], str),
            )

    def join(self, ids: Iterable[str]) -> int:
        """Join all chunks, one at a time, and write the list of clips.

        Returns the number of unreadable clips. ``features.npy``, which marks the folder
        as complete, appears last; then the chunks are removed.

        Raises
        ------
        ExperimentError
            If a chunk is missing or damaged, or no clip has features.
        """
        failures: dict[int, str] = {}
        warnings: dict[int, str] = {}
        with atomic_path(self.folder / FEATURES, sync=True) as temporary:
            # Not a memory map, where a full disk would end in a SIGBUS.
            with open(temporary, "wb") as file:
                _write_header(file, (self.num_clips, self.width))
                for number in tqdm(self.chunks(), "joining", leave=False, disable=None):
                    chunk = self._read(number)
                    if chunk is None:
                        raise ExperimentError(
                            f"{self._path(number)}: missing or damaged (re-run the "
                            "same command to compute it)"
                        )
                    file.write(chunk.features.tobytes())
                    failures |= chunk.failures
                    warnings |= chunk.warnings
            if len(failures) == self.num_clips:
                raise ExperimentError(
                    f"{self.folder}: none of {self.num_clips} clips has features; the "
                    f"first: {failures[0]} (fix this, and give a new folder)"
                )
            self._write_clips(ids, failures, warnings)
            record = self._record() | {"clips": self.num_clips, "width": self.width}
            record |= {"unreadable": len(failures), "warned": len(warnings)}
            write_json(self.folder / RECORD, record)
        self.clean_up()
        if warnings:
            row, example = next(iter(warnings.items()))
            logger.warning(
                "%s: %d clips have warnings (column warnings), such as row %d: %s",
                self.folder / CLIPS,
                len(warnings),
                row,
                example,
            )
        return len(failures)

    def clean_up(self) -> None:
        """Remove what killed processes left, and the chunks of complete features."""
        for temporary in self.folder.glob(".*.tmp"):
            temporary.unlink()
        if self.finished:
            shutil.rmtree(self.folder / CHUNKS, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self.folder / CHUNKS / f"{chunk:07d}.npz"

    def _any_chunk(self) -> bool:
        return any((self.folder / CHUNKS).glob("*.npz"))

    def _record(self) -> dict:
        path = self.folder / RECORD
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record["settings"], dict):
                return record
        except (ValueError, KeyError, TypeError):
            pass
        raise ExperimentError(f"{path}: damaged (give a new folder)")

    def _check_features(self) -> None:
        """Raise `ExperimentError` if the array is not what was written."""
        path = self.folder / FEATURES
        try:
            found = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            found = np.empty(0)
        if (found.shape, found.dtype) != ((self.num_clips, self.width), np.float32):
            raise ExperimentError(
                f"{path}: damaged (delete it and re-run the same command)"
            )

    def _read(self, chunk: int) -> _Chunk | None:
        """Read and check a chunk; None if it is missing or not what was written."""
        try:
            with np.load(self._path(chunk)) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            pairs = (("rows", "reasons"), ("warned_rows", "warnings"))
            tables = [
                dict(zip(found[a].tolist(), found[b].tolist(), strict=True))
                for a, b in pairs
            ]
            read = _Chunk(found["features"], *tables)
        except (OSError, ValueError, KeyError, EOFError, TypeError):
            return None
        except (zipfile.BadZipFile, zlib.error, NotImplementedError):
            return None
        return read if self._is_sound(chunk, read) else None

    def _is_sound(self, chunk: int, read: _Chunk) -> bool:
        rows, features = self.rows(chunk), read.features
        if features.shape != (len(rows), self.width) or features.dtype != np.float32:
            return False
        without = {rows[i] for i in np.flatnonzero(~np.isfinite(features).all(axis=1))}
        return without == set(read.failures) and set(read.warnings) <= set(rows)

    def _write_clips(
        self,
        ids: Iterable[str],
        failures: Mapping[int, str],
        warnings: Mapping[int, str],
    ) -> None:
        with atomic_open(self.folder / CLIPS) as file:
            writer = csv.writer(file)
            writer.writerow(("row", "id", "unreadable", "warnings"))
            for row, clip in enumerate(ids):
                reasons = failures.get(row, ""), warnings.get(row, "")
                writer.writerow((row, clip, *reasons))


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
