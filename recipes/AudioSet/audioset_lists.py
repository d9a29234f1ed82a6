"""AudioSet as Google lists it: the official CSV files and a folder of audio."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from audioset_layouts import (
    SUFFIXES,
    Clips,
    Listing,
    count_audio,
    find_files,
    split_labels,
    stamps,
)

from eat.errors import ManifestError

LABELS = "class_labels_indices.csv"
LABELS_URL = f"http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/{LABELS}"
LISTS = {
    "unbalanced_train": "unbalanced_train_segments.csv",
    "balanced_train": "balanced_train_segments.csv",
    "eval": "eval_segments.csv",
}


def _official(data_folder: Path, name: str) -> Path | None:
    """Return an official file, also from the folder where PANNs' downloads put it."""
    for path in (data_folder / name, data_folder / "metadata" / name):
        if path.is_file():
            return path
    return None


def official_labels(data_folder: Path) -> Path:
    """Return the official list of classes.

    Parameters
    ----------
    data_folder : Path
        Where it must lie.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ManifestError
        If it is not there.
    """
    if path := _official(data_folder, LABELS):
        return path
    raise ManifestError(
        f"{data_folder / LABELS}: missing, it names the classes "
        f"(download it from {LABELS_URL})"
    )


def official_lists(data_folder: Path) -> dict[str, Path]:
    """Return the official lists of clips that a folder holds.

    Parameters
    ----------
    data_folder : Path
        Where they lie.

    Returns
    -------
    dict of str to Path
        CSV file by subset.
    """
    lists = {subset: _official(data_folder, name) for subset, name in LISTS.items()}
    return {subset: path for subset, path in lists.items() if path}


def read_list(path: Path) -> Clips:
    """Read an official list: rows ``id, start, end, "mid,mid"`` below comments.

    Parameters
    ----------
    path : Path
        CSV file.

    Returns
    -------
    Clips
        Label ids by clip id, in order.

    Raises
    ------
    ManifestError
        If it is not such a list.
    """
    clips = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) != 4:
                    raise ManifestError(
                        f"{path}: line {number} has {len(row)} fields instead of id, "
                        "start, end, labels (download the official list again)"
                    )
                clips[row[0]] = split_labels(row[3])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path}: cannot be read as CSV, {error} (download the official list again)"
        ) from None
    return clips


@dataclass(frozen=True)
class OfficialLists:
    """The official lists and a folder of audio.

    Attributes
    ----------
    data_folder, save_folder : Path
        Corpus and results.
    lists : dict of str to Path
        Official list by subset.
    labels : Path
        The list of classes.
    """

    data_folder: Path
    save_folder: Path
    lists: dict[str, Path]
    labels: Path

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> OfficialLists | None:
        """Return this layout if the data folder has it.

        Parameters
        ----------
        data_folder, save_folder : Path
            Corpus and results.

        Returns
        -------
        OfficialLists or None
            None if no official list is there.
        """
        if lists := official_lists(data_folder):
            return cls(data_folder, save_folder, lists, official_labels(data_folder))
        return None

    def __str__(self) -> str:
        return f"official lists ({', '.join(self.lists)}) and audio files"

    def inputs(self) -> dict[str, object]:
        """Return sizes and times of the lists, and how much audio there is."""
        audio = count_audio(self.data_folder, self.save_folder)
        if not audio["files"]:
            raise ManifestError(
                f"{self.data_folder}: no audio file ({' '.join(SUFFIXES)}) below it "
                "(put the clips there as <YouTube id>.wav, at any depth)"
            )
        return {"lists": stamps(self.labels, *self.lists.values()), "audio": audio}

    def outputs(self) -> list[str]:
        """Return none: the audio is used where it lies."""
        return []

    def read(self) -> Listing:
        """Read the lists and find their clips."""
        subsets = {subset: read_list(path) for subset, path in self.lists.items()}
        return find_files(self.data_folder, self.save_folder, subsets)
