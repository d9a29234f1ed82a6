"""AudioSet as the Hugging Face copy ``agkphysics/AudioSet`` stores it: parquet files.

``data/{bal_train,unbal_train,eval}/*.parquet`` with the columns ``video_id``, ``audio``
(``bytes`` and ``path``), ``labels`` (label ids) and ``human_labels``. Each parquet file
becomes a folder of audio files and, when all of it is written, a CSV file beside that
folder with the clips and their labels: an interrupted unpacking goes on after the last
complete one, and a parquet file may be deleted once its CSV file is there.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audioset_layouts import (
    SUFFIXES,
    Clips,
    Listing,
    split_labels,
    stamps,
)
from audioset_lists import official_labels, official_lists, read_list
from tqdm import tqdm

from eat.errors import ManifestError
from eat.utils.files import atomic_open

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUBSETS = {
    "unbal_train": "unbalanced_train",
    "bal_train": "balanced_train",
    "eval": "eval",
}
COLUMNS = ("video_id", "audio", "labels")
_ID = re.compile(r"[A-Za-z0-9_-]+")
_ROWS_AT_ONCE = 16  # of 1 to 2 MB each


@dataclass(frozen=True)
class Part:
    """A parquet file and where it is unpacked to.

    Attributes
    ----------
    subset : str
        As manifests are called.
    parquet : Path
        The file, absolute; gone where it was deleted after unpacking.
    folder : Path
        Where its audio goes.
    """

    subset: str
    parquet: Path
    folder: Path

    @property
    def index(self) -> Path:
        """CSV file with the clips and their labels; its first line tells the source."""
        return self.folder.with_name(f"{self.folder.name}.csv")

    def stamp(self) -> list[str]:
        """Return size and time of the parquet file, from the index if it is gone."""
        if self.parquet.is_file():
            status = self.parquet.stat()
            return [str(status.st_size), str(status.st_mtime_ns)]
        return _source(self.index)[1:]

    def is_unpacked(self) -> bool:
        """Return whether all of it has been unpacked."""
        return self.index.is_file() and _source(self.index)[1:] == self.stamp()


def _source(index: Path) -> list[str]:
    """Return path, size and time of the parquet file that an index was made from."""
    with open(index, encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _check_columns(file: ParquetFile, path: Path) -> None:
    """Raise `ManifestError` where a parquet file does not hold AudioSet."""
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    for column in COLUMNS:
        if not any(f"{leaf}.".startswith(f"{column}.") for leaf in leaves):
            raise ManifestError(
                f"{path}: has no column '{column}' but {', '.join(leaves)} "
                "(download it from the data set agkphysics/AudioSet)"
            )


def _read_rows(path: Path) -> Iterator[dict]:
    """Read a parquet file a few rows at a time."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ManifestError(
            f"{path}: reading parquet files needs pyarrow (pip install pyarrow)"
        ) from None
    try:
        # With a buffer memory holds about one group of rows, 100 clips there; without
        # it was five times as much.
        with ParquetFile(path, buffer_size=1 << 20) as file:
            _check_columns(file, path)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(COLUMNS)):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise ManifestError(
            f"{path}: damaged, {str(error).splitlines()[0]} (download it again)"
        ) from None


def _write_clip(folder: Path, row: dict, path: Path) -> tuple[str, str, int]:
    """Write the audio of a row; return clip, file name and size."""
    clip, audio = row["video_id"] or "", row["audio"] or {}
    if not _ID.fullmatch(clip):
        raise ManifestError(
            f"{path}: its video_id '{clip}' is no YouTube id (download it again)"
        )
    suffix = os.path.splitext(audio.get("path") or "")[1].lower()
    name = clip + (suffix if suffix in SUFFIXES else ".flac")
    # A row without bytes leaves an empty file, which the check of all audio reports.
    content = audio.get("bytes") or b""
    temporary = folder / f"{name}.tmp"
    temporary.write_bytes(content)
    os.replace(temporary, folder / name)
    return clip, name, len(content)


def _unpack(part: Part, bar: tqdm) -> None:
    """Write the audio of a parquet file, then its index."""
    part.folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for row in _read_rows(part.parquet):
        clip, name, size = _write_clip(part.folder, row, part.parquet)
        clips.append((clip, name, ",".join(row["labels"] or ())))
        bar.update(size)
    with atomic_open(part.index) as file:
        source = (str(part.parquet), *part.stamp())
        csv.writer(file).writerows([source, *clips])


def _find_parts(data_folder: Path, save_folder: Path) -> Iterator[Part]:
    """Find parquet files, and what is left of those deleted after unpacking."""
    for name, subset in SUBSETS.items():
        target = save_folder / "audio" / subset
        made = [Path(*_source(index)[:1]) for index in target.glob("*.csv")]
        for folder in (data_folder / "data" / name, data_folder / name):
            source = Path(os.path.abspath(folder))
            left = {path.stem for path in made if path.parent == source}
            there = {path.stem for path in source.glob("*.parquet")}
            if stems := sorted(there | left):
                for stem in stems:
                    yield Part(subset, source / f"{stem}.parquet", target / stem)
                break


@dataclass(frozen=True)
class ParquetCopy:
    """The Hugging Face copy.

    Attributes
    ----------
    data_folder, save_folder : Path
        Corpus and results.
    parts : tuple of Part
        The parquet files.
    labels : Path
        The list of classes.
    """

    data_folder: Path
    save_folder: Path
    parts: tuple[Part, ...]
    labels: Path

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> ParquetCopy | None:
        """Return this layout if the data folder has it.

        Parameters
        ----------
        data_folder, save_folder : Path
            Corpus and results.

        Returns
        -------
        ParquetCopy or None
            None if no parquet file is there.
        """
        if parts := tuple(_find_parts(data_folder, save_folder)):
            return cls(data_folder, save_folder, parts, official_labels(data_folder))
        return None

    def __str__(self) -> str:
        return f"{len(self.parts)} parquet files of the Hugging Face copy"

    def inputs(self) -> dict[str, object]:
        """Return sizes and times of the parquet files and lists."""
        parts = {
            f"{part.subset}/{part.folder.name}": part.stamp() for part in self.parts
        }
        lists = official_lists(self.data_folder).values()
        return {
            "lists": stamps(self.labels, *lists),
            "audio": parts,
            "folder": os.path.abspath(self.save_folder),
        }

    def outputs(self) -> list[str]:
        """Return the indexes of what is unpacked."""
        return [str(part.index.relative_to(self.save_folder)) for part in self.parts]

    def _unpack_all(self) -> None:
        """Unpack what is not unpacked yet."""
        left = [part for part in self.parts if not part.is_unpacked()]
        needed = sum(part.parquet.stat().st_size for part in left)
        free = shutil.disk_usage(self.save_folder).free
        if needed > free:
            raise ManifestError(
                f"{self.save_folder}: unpacking {len(left)} parquet files takes "
                f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free "
                "(choose another save_folder)"
            )
        with tqdm(
            total=needed, unit="B", unit_scale=True, desc="unpacking", disable=None
        ) as bar:
            for part in left:
                try:
                    _unpack(part, bar)
                except OSError as error:
                    raise ManifestError(
                        f"{part.folder}: cannot be written, {error.strerror} "
                        "(make room or choose another save_folder)"
                    ) from None

    def read(self) -> Listing:
        """Unpack the audio and read which clips there are.

        Where an official list lies beside the parquet files, its clips that they do
        not hold count as missing.
        """
        self._unpack_all()
        lists = official_lists(self.data_folder)
        subsets: dict[str, Clips] = {}
        files: dict[str, str] = {}
        duplicates = 0
        for part in self.parts:
            if part.subset not in subsets:
                path = lists.get(part.subset)
                subsets[part.subset] = read_list(path) if path else {}
            folder = os.path.abspath(part.folder)
            with open(part.index, encoding="utf-8", newline="") as index:
                _, *rows = csv.reader(index)
            for clip, name, labels in rows:
                duplicates += clip in files
                files.setdefault(clip, os.path.join(folder, name))
                subsets[part.subset][clip] = split_labels(labels)
        return Listing(subsets, files, duplicates=duplicates)
