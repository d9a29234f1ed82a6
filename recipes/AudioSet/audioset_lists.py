"""AudioSet as Google lists it: the official CSV files and a folder of audio."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from audioset_layouts import (
    SUFFIXES,
    Clips,
    Layout,
    Listing,
    count_audio,
    find_files,
    split_labels,
)

from eat.data.prepare import fingerprint
from eat.errors import ManifestError

LABELS = "class_labels_indices.csv"
LABELS_URL = f"http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/{LABELS}"
LISTS = {
    "unbalanced_train": "unbalanced_train_segments.csv",
    "balanced_train": "balanced_train_segments.csv",
    "eval": "eval_segments.csv",
}


def _official(data_folder: Path, name: str) -> Path | None:
    """Return an official file; PANNs' downloader puts them into ``metadata``."""
    for path in (data_folder / name, data_folder / "metadata" / name):
        if path.is_file():
            return path
    return None


def official_labels(data_folder: Path) -> Path:
    """Return the official list of classes, which must be there."""
    if path := _official(data_folder, LABELS):
        return path
    raise ManifestError(
        f"{data_folder / LABELS}: missing, it lists the classes "
        f"(download it from {LABELS_URL})"
    )


def official_lists(data_folder: Path) -> dict[str, Path]:
    """Return the official lists of clips in a folder, by subset."""
    lists = {subset: _official(data_folder, name) for subset, name in LISTS.items()}
    return {subset: path for subset, path in lists.items() if path}


def stamp_lists(data_folder: Path, *paths: Path) -> str:
    """Return a checksum that changes when one of the given lists does."""
    names = [path.relative_to(data_folder).as_posix() for path in paths]
    return fingerprint(data_folder, names)


def read_list(path: Path) -> Clips:
    """Read an official list: rows ``id, start, end, "mid,mid"`` after comments.

    Returns the label ids by clip id, in order.
    """
    clips = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) != 4:
                    raise ManifestError(
                        f"{path}: line {number} has {len(row)} fields, not id, start, "
                        "end, labels (download the official list again)"
                    )
                clips[row[0]] = split_labels(row[3])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path}: cannot be read as CSV, {error} (download the official list again)"
        ) from None
    return clips


@dataclass(frozen=True)
class OfficialLists(Layout):
    """The official lists, by subset, and a folder of audio."""

    lists: dict[str, Path]

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> OfficialLists | None:
        """Return this layout if there is an official list."""
        if lists := official_lists(data_folder):
            return cls(data_folder, save_folder, official_labels(data_folder), lists)
        return None

    def __str__(self) -> str:
        return f"official lists ({', '.join(self.lists)}) and audio files"

    def inputs(self) -> dict[str, object]:
        """Return a checksum of the lists, and how much audio there is."""
        audio = count_audio(self.data_folder, self.save_folder)
        if not audio["files"]:
            raise ManifestError(
                f"{self.data_folder}: no audio files ({' '.join(SUFFIXES)}) in it "
                "(put the clips there as <YouTube id>.wav, at any depth)"
            )
        lists = stamp_lists(self.data_folder, self.labels, *self.lists.values())
        return {"lists": lists, "audio": audio}

    def read(self) -> Listing:
        """Read the lists and find their clips."""
        subsets = {subset: read_list(path) for subset, path in self.lists.items()}
        return find_files(self.data_folder, self.save_folder, subsets)
