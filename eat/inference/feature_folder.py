"""Where features are written: chunks while they are computed, then joined."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

from eat.errors import ExperimentError
from eat.inference.feature_chunk import (
    DAMAGED,
    ChunkWriter,
    ClipFeatures,
    FeatureChunk,
    write_chunk,
)
from eat.inference.feature_writers import FRAME_FILES, open_writer
from eat.utils.files import atomic_open, atomic_path, remove_temporaries, write_json
from eat.utils.settings_diff import describe_changes

logger = logging.getLogger(__name__)

FORMATS = (".npy", ".parquet", ".csv", ".jsonl")
ARRAY, FRAMES = "features.npy", "frames.csv"  # in a folder
CLIPS = "clips.csv"
RECORD = "features.json"
CHUNKS = "chunks"


class FeatureFolder:
    """The features of M clips, complete or in progress.

    Attributes
    ----------
    out
        A file or folder, as given.
    target
        The file that marks them as complete, since it appears last: `out` if it has a
        suffix of `FORMATS`, otherwise in the folder `out`: ``features.npy``, or for
        several `parts` of each clip ``frames.csv``.
    folder
        The folder of the list of clips, of the settings and of the chunks: `out`, or
        for a file ``OUT.info``.
    """

    def __init__(
        self,
        out: str | Path,
        num_clips: int,
        chunk_clips: int,
        shape: Sequence[int],
        layers: Sequence[int] | None = None,
        parts: bool = False,
    ) -> None:
        self.out = out = Path(out)
        self.folder = _folder_of(out)
        is_file = self.folder != out
        self.target = out if is_file else out / (FRAMES if parts else ARRAY)
        self.num_clips = num_clips
        self.chunk_clips = chunk_clips
        self.shape = tuple(shape)
        self.layers = layers

    @property
    def clips(self) -> Path:
        """The list of clips, with the reasons for which some have no features."""
        return self.folder / CLIPS

    @property
    def finished(self) -> bool:
        """Whether all chunks have been computed and joined."""
        return self.target.exists()

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
        try:
            for _ in self._read(chunk):
                pass
        except DAMAGED:
            logger.warning("%s: damaged, computed again", path)
            return False
        return True

    def missing(self) -> list[int]:
        """Return the chunks that are not there; others may be damaged."""
        return [chunk for chunk in self.chunks() if not self._path(chunk).exists()]

    def failed(self, chunk: int) -> int:
        """Return how many clips of a complete chunk have no features."""
        return len(self._read(chunk).failures)

    def conflict(self, settings: Mapping[str, object]) -> str:
        """Return why features with these settings cannot be written here.

        The settings are all that the numbers depend on, as JSON values. The answer is
        for instance ``pooling was cls, now mean``; it is empty if there is nothing or
        features with these settings, complete or in progress.

        Raises
        ------
        ExperimentError
            If what is there is damaged.
        """
        if not (self.folder / RECORD).exists():
            names = (ARRAY, FRAMES, CLIPS, FRAME_FILES)
            found = [self.target, *(self.folder / name for name in names)]
            there = [path for path in found if os.path.lexists(path)]
            return f"{there[0].name} without a {RECORD}" if there else ""
        arrays = (self.target, self.folder / ARRAY, self.folder / FRAMES)
        if not self._any_chunk() and not any(path.exists() for path in arrays):
            return ""  # nothing was computed: a failed start must not fix the settings
        record = self.record()
        changes = describe_changes(record["settings"], settings)
        if self.finished and not changes:
            size = self.target.stat().st_size
            if size != record.get("bytes"):
                raise ExperimentError(
                    f"{self.target}: damaged, it has {size} bytes (delete it and "
                    "re-run the same command)"
                )
        return changes

    def start(self, settings: Mapping[str, object], **provenance: object) -> None:
        """Record the settings and further JSON values, unless a chunk exists."""
        (self.folder / CHUNKS).mkdir(parents=True, exist_ok=True)
        if not self._any_chunk():
            write_json(self.folder / RECORD, {"settings": settings, **provenance})

    def write(self, chunk: int) -> AbstractContextManager[ChunkWriter]:
        """Write a chunk, which appears once the block has succeeded."""
        return write_chunk(self._path(chunk))

    def join(self, ids: Iterable[str]) -> int:
        """Join all chunks, one at a time, and write the list of clips.

        Returns the number of clips without features. The target appears last; then the
        chunks are removed.

        Raises
        ------
        ExperimentError
            If a chunk is missing or damaged, or no clip has features.
        """
        failures: dict[int, str] = {}
        warnings: dict[int, str] = {}
        with atomic_path(self.target, sync=True) as temporary:
            numbers, counts = iter(ids), []
            form = (self.target, temporary, self.num_clips, self.shape, self.layers)
            with open_writer(*form) as writer:
                for chunk in tqdm(self.chunks(), "joining", leave=False, disable=None):
                    for features in self._checked(chunk, failures, warnings):
                        writer.add(next(numbers), features)
                        counts.append(0 if features is None else len(features.values))
            if len(failures) == self.num_clips:
                raise ExperimentError(
                    f"{self.folder}: none of {self.num_clips} clips has features; the "
                    f"first: {failures[0]} (fix this, and give a new --out)"
                )
            self._write_clips(ids, counts, failures, warnings)
            record = self.record() | {"clips": self.num_clips, "shape": self.shape}
            record |= {"failed": len(failures), "warned": len(warnings)}
            record["bytes"] = temporary.stat().st_size
            write_json(self.folder / RECORD, record)
        self.clean_up()
        self._log_warnings(warnings)
        return len(failures)

    def clean_up(self) -> None:
        """Remove what killed processes left, and the chunks of complete features."""
        for folder in {self.folder, self.target.parent, self.folder / CHUNKS}:
            remove_temporaries(folder)
        if self.finished:
            # Of killed processes of other machines, too: nobody writes it any more.
            for temporary in self.target.parent.glob(f".{self.target.name}.*.tmp"):
                temporary.unlink()
            shutil.rmtree(self.folder / CHUNKS, ignore_errors=True)

    def record(self) -> dict:
        """Return what was recorded; raises `ExperimentError` if it is damaged."""
        path = self.folder / RECORD
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record["settings"], dict):
                return record
        except (ValueError, KeyError, TypeError):
            pass
        raise ExperimentError(f"{path}: damaged (give a new --out)")

    def _path(self, chunk: int) -> Path:
        return self.folder / CHUNKS / f"{chunk:07d}.npz"

    def _any_chunk(self) -> bool:
        return any((self.folder / CHUNKS).glob("*.npz"))

    def _read(self, chunk: int) -> FeatureChunk:
        return FeatureChunk(self._path(chunk), self.rows(chunk), self.shape)

    def _checked(
        self, number: int, failures: dict[int, str], warnings: dict[int, str]
    ) -> Iterator[ClipFeatures | None]:
        """Yield the features of a chunk's clips; add its failures and warnings."""
        try:
            chunk = self._read(number)
            failures |= chunk.failures
            warnings |= chunk.warnings
            yield from (features for _, features in chunk)
        except DAMAGED as error:
            raise ExperimentError(
                f"{self._path(number)}: missing or damaged, {error} (re-run the same "
                "command to compute it)"
            ) from None

    def _write_clips(
        self,
        ids: Iterable[str],
        counts: Sequence[int],
        failures: Mapping[int, str],
        warnings: Mapping[int, str],
    ) -> None:
        with atomic_open(self.clips) as file:
            writer = csv.writer(file)
            writer.writerow(("row", "path", "parts", "failure", "warnings"))
            for row, (clip, parts) in enumerate(zip(ids, counts, strict=True)):
                reasons = failures.get(row, ""), warnings.get(row, "")
                writer.writerow((row, clip, parts, *reasons))

    def _log_warnings(self, warnings: Mapping[int, str]) -> None:
        if warnings:
            row, example = next(iter(warnings.items()))
            logger.warning(
                "%s: %d clips have warnings (column warnings), such as row %d: %s",
                self.clips,
                len(warnings),
                row,
                example,
            )


def _folder_of(out: Path) -> Path:
    is_file = out.suffix.lower() in FORMATS
    return out.with_name(f"{out.name}.info") if is_file else out


def recorded_batch_size(out: str | Path) -> int | None:
    """Return the batch size of the features in `out`, if there are any."""
    try:
        record = json.loads((_folder_of(Path(out)) / RECORD).read_bytes())
        found = record["settings"]["batch_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None
