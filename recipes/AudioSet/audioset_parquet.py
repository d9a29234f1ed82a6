"""AudioSet as the Hugging Face copy ``agkphysics/AudioSet`` stores it: parquet files.

``data/{bal_train,unbal_train,eval}/*.parquet`` with the columns ``video_id``, ``audio``
(``bytes`` and ``path``), ``labels`` (label ids) and ``human_labels``. Each parquet file
is unpacked to a folder of audio files; a CSV file with the clips and their labels, next
to that folder, marks it as complete. Interrupted unpacking resumes after the last
complete folder, and a parquet file may be deleted once its CSV file exists.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audioset_columns import TYPES, Row, check_types, class_names, label_ids, parse_row
from audioset_layouts import Clips, Layout, Listing
from audioset_lists import official_labels, official_lists, read_list, stamp_lists
from tqdm import tqdm

from eat.audio.io import AUDIO_SUFFIXES
from eat.data.check_parts import SharedCheck
from eat.data.manifest import read_labels
from eat.errors import ManifestError
from eat.utils.files import atomic_open, atomic_path
from eat.utils.parts import WHOLE, Part
from eat.utils.text import other_format

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUBSETS = {
    "unbal_train": "unbalanced_train",
    "bal_train": "balanced_train",
    "eval": "eval",
}
_ID = re.compile(r"[A-Za-z0-9_-]+")
_ROWS_AT_ONCE = 16  # of 1 to 2 MB each


@dataclass(frozen=True)
class Shard:
    """A parquet file of a subset, and the folder for its audio.

    The file may have been deleted after unpacking.
    """

    subset: str
    parquet: Path
    folder: Path

    @property
    def index(self) -> Path:
        """CSV file with the clips and their labels; its first line is the source."""
        return self.folder.with_name(f"{self.folder.name}.csv")

    def stamp(self) -> list[str]:
        """Return size and time of the parquet file, from the index if it is deleted."""
        if self.parquet.is_file():
            status = self.parquet.stat()
            return [str(status.st_size), str(status.st_mtime_ns)]
        return _source(self.index)[1:]

    def is_unpacked(self) -> bool:
        """Return whether the file is completely unpacked."""
        return self.index.is_file() and _source(self.index)[1:] == self.stamp()


def _source(index: Path) -> list[str]:
    """Return path, size and time of the parquet file that an index is from."""
    return next(_read_index(index), [])


def _read_index(index: Path) -> Iterator[list[str]]:
    """Yield the lines of an index, split at commas."""
    try:
        with open(index, encoding="utf-8", newline="") as file:
            yield from csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{index}: cannot be read, {error} (delete it to unpack the clips again)"
        ) from None


@contextmanager
def _open_parquet(path: Path) -> Iterator[ParquetFile]:
    """Open a parquet file of AudioSet; errors while it is open name it."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with open(path, "rb") as start:
            if what := other_format(start.read(64)):
                raise ManifestError(f"{path}: {what}")
        # The buffer limits memory to about one row group, 100 clips; without it, five
        # times as much is needed.
        with ParquetFile(path, buffer_size=1 << 20) as file:
            check_types(file.schema_arrow, path)
            yield file
    except PermissionError as error:
        raise ManifestError(
            f"{path}: cannot be read, {error.strerror} (check its permissions)"
        ) from None
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ManifestError(f"{path}: corrupt, {reason} (download it again)") from None


def _read_rows(path: Path) -> Iterator[Row]:
    """Read a parquet file a few rows at a time."""
    with _open_parquet(path) as file:
        names = class_names(file.schema_arrow)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(TYPES)):
            for row in batch.to_pylist():
                yield parse_row(row, names, path)


def _write_clip(shard: Shard, row: Row) -> tuple[str, int]:
    """Write the audio of a row; return the file name and size.

    If the row has only the path of a file that exists, that is the name. That of a row
    without audio is empty.
    """
    if not _ID.fullmatch(row.id):
        raise ManifestError(
            f"{shard.parquet}: video_id '{row.id}' is not a YouTube id (download it "
            "again)"
        )
    if not row.audio:
        return _find_audio(shard, row.path), 0
    suffix = os.path.splitext(row.path)[1].lower()
    name = row.id + (suffix if suffix in AUDIO_SUFFIXES else ".flac")
    with atomic_path(shard.folder / name) as temporary:
        temporary.write_bytes(row.audio)
    return name, len(row.audio)


def _find_audio(shard: Shard, path: str) -> str:
    """Return where a file is that a row has the path of, if below the data folder."""
    if not path or os.path.isabs(path) or os.pardir in path.split("/"):
        return ""
    for folder in (shard.parquet.parent, *shard.parquet.parents[1:3]):
        if (folder / path).is_file():
            return str(folder / path)
    return ""


def _unpack(shard: Shard, bar: tqdm) -> None:
    """Write the audio of a parquet file, then its index."""
    shard.folder.mkdir(parents=True, exist_ok=True)
    clips = {}
    for row in _read_rows(shard.parquet):
        if row.id not in clips:  # of a repeated clip, the first row counts
            name, size = _write_clip(shard, row)
            clips[row.id] = (row.id, name, *row.labels)
            bar.update(size)
    with atomic_open(shard.index) as file:
        source = (str(shard.parquet), *shard.stamp())
        csv.writer(file).writerows([source, *clips.values()])


def _find_shards(data_folder: Path, save_folder: Path) -> Iterator[Shard]:
    """Yield the parquet files, including those deleted after unpacking."""
    for name, subset in SUBSETS.items():
        target = save_folder / "audio" / subset
        made = [Path(*_source(index)[:1]) for index in target.glob("*.csv")]
        for folder in (data_folder / "data" / name, data_folder / name):
            source = Path(os.path.abspath(folder))
            left = {path.stem for path in made if path.parent == source}
            there = set()
            for path in source.glob("[!.]*.parquet*"):
                if not path.is_file() or path.suffix != ".parquet":
                    raise ManifestError(
                        f"{path}: not a complete parquet file (download it again)"
                    )
                there.add(path.stem)
            if stems := sorted(there | left):
                for stem in stems:
                    yield Shard(subset, source / f"{stem}.parquet", target / stem)
                break


@dataclass(frozen=True)
class ParquetCopy(Layout):
    """The Hugging Face copy."""

    shards: tuple[Shard, ...]

    remedy = "download the parquet files again, with the audio in them"

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> ParquetCopy | None:
        """Return this layout if there is a parquet file."""
        if shards := tuple(_find_shards(data_folder, save_folder)):
            return cls(data_folder, save_folder, official_labels(data_folder), shards)
        return None

    def __str__(self) -> str:
        return f"{len(self.shards)} parquet files of the Hugging Face copy"

    def inputs(self) -> dict[str, object]:
        """Return a checksum of the lists, and the stamps of the parquet files."""
        lists = official_lists(self.data_folder).values()
        return {
            "lists": stamp_lists(self.data_folder, self.labels, *lists),
            "audio": {f"{p.subset}/{p.folder.name}": p.stamp() for p in self.shards},
            "folder": os.path.abspath(self.save_folder),
        }

    def outputs(self) -> list[str]:
        """Return the indexes of the unpacked files."""
        return [str(shard.index.relative_to(self.save_folder)) for shard in self.shards]

    def unpack(self, part: Part, inputs: Mapping[str, object]) -> Part | None:
        """Unpack a part of the parquet files; each is a block of the check."""
        if part == WHOLE:
            self._unpack_all(self.shards)
            return part
        check = SharedCheck(self.data_folder, self.save_folder, inputs, part)
        self._unpack_all(part.share(self.shards))
        for number in part.share(range(len(self.shards))):
            _, *clips = _read_index(self.shards[number].index)
            folder = os.path.abspath(self.shards[number].folder)
            names = [os.path.join(folder, name) for _, name, *_ in clips if name]
            check.check(number, names)
        return WHOLE if check.is_complete(len(self.shards)) else None

    def read(self) -> Listing:
        """List the clips in the indexes.

        Clips of an official list next to the parquet files that are not in them count
        as missing.
        """
        lists = official_lists(self.data_folder)
        found: dict[str, Clips] = {shard.subset: {} for shard in self.shards}
        files: dict[str, str] = {}
        ids = label_ids(read_labels(self.labels))
        duplicates = 0
        for shard in self.shards:
            folder = os.path.abspath(shard.folder)
            rows = _read_index(shard.index)
            next(rows, None)  # the source
            for clip, name, *labels in rows:
                found[shard.subset].setdefault(clip, ids(tuple(labels)))
                if clip in files:
                    duplicates += 1
                elif name:
                    files[clip] = os.path.join(folder, name)
        subsets = {
            subset: {**read_list(lists[subset]), **clips} if subset in lists else clips
            for subset, clips in found.items()
        }
        return Listing(subsets, files, duplicates=duplicates)

    def _unpack_all(self, shards: Sequence[Shard]) -> None:
        """Unpack the files that are not unpacked yet."""
        left = [shard for shard in shards if not shard.is_unpacked()]
        for shard in left:  # before the first is unpacked, which may take hours
            with _open_parquet(shard.parquet):
                pass
        needed = sum(shard.parquet.stat().st_size for shard in left)
        free = shutil.disk_usage(self.save_folder).free
        if needed > free:
            raise ManifestError(
                f"{self.save_folder}: unpacking {len(left)} parquet files takes "
                f"{needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free "
                "(choose another save_folder)"
            )
        with tqdm(
            total=needed, unit="B", unit_scale=True, desc="unpacking", disable=None
        ) as bar:
            for shard in left:
                try:
                    _unpack(shard, bar)
                except OSError as error:
                    raise ManifestError(
                        f"{shard.folder}: cannot be written, {error.strerror} "
                        "(free some space or choose another save_folder)"
                    ) from None
