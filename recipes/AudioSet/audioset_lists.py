"""AudioSet as Google lists it: the official CSV files and a folder of audio."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from audioset_layouts import (
    Clips,
    Layout,
    Listing,
    count_audio,
    find_files,
    split_labels,
)

from eat.data.corpus_folder import fingerprint, refuse_archives
from eat.data.prepare import abbreviate
from eat.data.tables import read_table
from eat.errors import ManifestError

logger = logging.getLogger(__name__)

LABELS = "class_labels_indices.csv"
LABELS_URL = f"http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/{LABELS}"
LISTS = {
    "unbalanced_train": "unbalanced_train_segments.csv",
    "balanced_train": "balanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
ALIASES = {
    **dict.fromkeys(("id", "video_id", "youtube_id", "ytid"), "YTID"),
    **{"start": "start_seconds", "end": "end_seconds", "labels": "positive_labels"},
}
REMEDY = "download the official list again"
VIDEO_ID = re.compile(r"[A-Za-z0-9_-]+")
TIME = re.compile(r"\d+([.,]\d*)?")
ID_LENGTH = 11


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

    Returns the label ids by clip id, in order. Warns about lines that repeat others and
    ids of another length.
    """
    clips: Clips = {}
    repeated = 0
    table = read_table(
        path, COLUMNS, header="optional", aliases=ALIASES, comment="#", remedy=REMEDY
    )
    for line, row in table:
        clip, *times, text = row.values()
        labels, fault = split_labels(text), None
        if not VIDEO_ID.fullmatch(clip):
            fault = f"{clip!r} is not a YouTube id"
        elif not all(map(TIME.fullmatch, times)):
            fault = f"{' to '.join(times)!r} is not a time in seconds"
        elif clip in clips and clips[clip] != labels:
            fault = f"'{clip}' has other labels on an earlier line"
        if fault:
            raise ManifestError(f"{path}: line {line}: {fault} ({REMEDY})")
        repeated += clip in clips
        clips[clip] = labels
    if not clips:
        raise ManifestError(f"{path}: no clips in it ({REMEDY})")
    if repeated:
        logger.warning("%s: %d lines repeat others", path, repeated)
    odd = [clip for clip in clips if len(clip) != ID_LENGTH]
    if 0 < len(odd) < len(clips):
        text = "%s: %d ids have not %d characters (a spreadsheet may alter ids): %s"
        logger.warning(text, path, len(odd), ID_LENGTH, abbreviate(odd))
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
            refuse_archives(
                [*self.data_folder.glob("*"), *self.data_folder.glob("*/*")]
            )
            raise ManifestError(
                f"{self.data_folder}: no audio files (.wav .flac .ogg .mp3 and the "
                "like) in it (put the clips there as <YouTube id>.wav, at any depth)"
            )
        lists = stamp_lists(self.data_folder, self.labels, *self.lists.values())
        return {"lists": lists, "audio": audio}

    def read(self) -> Listing:
        """Read the lists and find their clips."""
        subsets = {subset: read_list(path) for subset, path in self.lists.items()}
        return find_files(self.data_folder, self.save_folder, subsets)
