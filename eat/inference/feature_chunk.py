"""A chunk of features in a file: those of consecutive clips, complete or not there."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eat.utils.files import atomic_path

# What reading a damaged file raises.
DAMAGED: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, IndexError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


class ClipFeatures(NamedTuple):
    """Features `[R, ...]` of a clip, start and end of its R parts in s `[R, 2]`."""

    values: np.ndarray
    times: np.ndarray


class ChunkWriter:
    """Writes a chunk; see :func:`write_chunk`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._groups = 0

    def add(self, clips: Mapping[int, ClipFeatures]) -> None:
        """Write the features of some clips, by row of the list of clips."""
        features = clips.values()
        arrays = {
            "clips": np.array([*clips]),
            "parts": np.array([len(clip.values) for clip in features]),
            "values": np.concatenate([clip.values for clip in features]),
            "times": np.concatenate([clip.times for clip in features]),
        }
        self._write({f"{name}{self._groups}": a for name, a in arrays.items()})
        self._groups += 1

    def close(self, failures: Mapping[int, str], warnings: Mapping[int, str]) -> None:
        """Write why clips have no features, and the warnings of others."""
        self._write(
            {
                "groups": np.array(self._groups),
                "failed": np.array([*failures], np.int64),
                "reasons": np.array([*failures.values()], str),
                "warned": np.array([*warnings], np.int64),
                "warnings": np.array([*warnings.values()], str),
            }
        )

    def _write(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def write_chunk(path: Path) -> Iterator[ChunkWriter]:
    """Write a chunk that appears under its name once the block has succeeded.

    It is an ``.npz`` file, written in groups of clips so that never all are in memory.
    """
    with (
        atomic_path(path, sync=True) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        yield ChunkWriter(archive)


class FeatureChunk:
    """A chunk that is read group by group; `failures` and `warnings` are by row.

    Raises one of `DAMAGED` if the file is missing or is not what was written.
    """

    def __init__(self, path: Path, rows: range, shape: Sequence[int]) -> None:
        self._path = path
        self._rows = rows
        self._shape = tuple(shape)
        with np.load(path) as arrays:
            self._groups = int(arrays["groups"])
            self.failures = _table(arrays["failed"], arrays["reasons"])
            self.warnings = _table(arrays["warned"], arrays["warnings"])
            self._clips = [arrays[f"clips{group}"] for group in range(self._groups)]
        found = Counter([*self.failures, *(c for g in self._clips for c in g.tolist())])
        if found != Counter(rows) or not set(self.warnings) <= set(rows):
            raise ValueError(f"{path}: contains other clips")

    def __iter__(self) -> Iterator[tuple[int, ClipFeatures | None]]:
        """Yield all clips in order; None for those without features."""
        group_of = {
            clip: g for g, group in enumerate(self._clips) for clip in group.tolist()
        }
        ready: dict[int, ClipFeatures] = {}
        with np.load(self._path) as arrays:
            for row in self._rows:
                if row in group_of and row not in ready:
                    ready |= self._read(arrays, group_of[row])
                yield row, ready.pop(row, None)

    def _read(
        self, arrays: Mapping[str, np.ndarray], group: int
    ) -> dict[int, ClipFeatures]:
        """Read and check the clips of a group."""
        values, times = arrays[f"values{group}"], arrays[f"times{group}"]
        if values.dtype != np.float32 or values.shape[1:] != self._shape:
            raise ValueError(f"{self._path}: features of {values.dtype} {values.shape}")
        if times.shape != (len(values), 2) or not np.isfinite(values).all():
            raise ValueError(f"{self._path}: times or features are damaged")
        ends = np.cumsum(arrays[f"parts{group}"]).tolist()
        if ends[-1] != len(values):
            raise ValueError(f"{self._path}: {ends[-1]} parts of {len(values)}")
        clips, starts = self._clips[group].tolist(), [0, *ends]
        return {
            clip: ClipFeatures(values[start:end], times[start:end])
            for clip, start, end in zip(clips, starts, ends, strict=False)
        }


def _table(rows: np.ndarray, texts: np.ndarray) -> dict[int, str]:
    return dict(zip(rows.tolist(), texts.tolist(), strict=True))
