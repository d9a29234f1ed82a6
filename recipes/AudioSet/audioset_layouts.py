"""The layouts in which AudioSet is distributed: what each provides, how audio is found.

A layout lists the clips of each subset with their labels and files. There are three:
`audioset_lists`, `audioset_tsv` and `audioset_parquet`.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from eat.audio.io import AUDIO_SUFFIXES
from eat.data.corpus_folder import refuse_unreadable
from eat.utils.parts import Part
from eat.utils.text import clean

# In file names and in lists of them: abcdefghijk, Yabcdefghijk, abcdefghijk_30_40.
_VIDEO = re.compile(r"Y?(.{11})(?:_\d+(?:\.\d+)?){0,2}")
_TIME = re.compile(r"_\d+(\.\d+)?$")

Clips = dict[str, tuple[str, ...]]  # label ids by clip id


@dataclass(frozen=True)
class Listing:
    """The clips of a corpus.

    `files` has the audio file of each clip, relative to the data folder or absolute; a
    clip without one is missing. `others` has alternative files, `faults` why a clip
    cannot be used, whatever is in its file.
    """

    subsets: dict[str, Clips]
    files: dict[str, str]
    others: dict[str, list[str]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0  # audio files not used because their clip has another one
    unlisted: int = 0  # audio files that belong to no listed clip


@dataclass(frozen=True)
class Layout(ABC):
    """A layout of AudioSet that was found; `labels` is the file that lists the classes.

    ``str(layout)`` describes it in the log.
    """

    data_folder: Path
    save_folder: Path
    labels: Path

    remedy = "name audio files <YouTube id>.wav or similar"  # if no clip can be used

    @classmethod
    @abstractmethod
    def find(cls, data_folder: Path, save_folder: Path) -> Layout | None:
        """Return this layout if the data folder has it."""

    @abstractmethod
    def inputs(self) -> dict[str, object]:
        """Return facts that change when the corpus does; every start of a run asks."""

    def outputs(self) -> list[str]:
        """Return the files in the save folder that `read` writes."""
        return []

    def unpack(self, part: Part, inputs: Mapping[str, object]) -> Part | None:
        """Unpack a part of the audio, if it is packed, and check that.

        Returns the part of the check that is left, None if parts are missing.
        """
        return part

    @abstractmethod
    def read(self) -> Listing:
        """List the clips, all of which are unpacked."""


@cache
def split_labels(text: str) -> tuple[str, ...]:
    """Split label ids at commas; clips with equal labels share them in memory.

    A list as Python, JSON or NumPy writes it is read as well.
    """
    if text.startswith("["):
        text = re.sub(r"""[][\s'"]+""", ",", text)
    labels = map(clean, text.replace(";", ",").split(","))
    return tuple(dict.fromkeys(filter(None, labels)))


def video_of(clip: str) -> str:
    """Return the YouTube id in the id of a clip."""
    match = _VIDEO.fullmatch(clip)
    return match[1] if match else clip


def walk_audio(folder: Path, excluded: Path) -> Iterator[tuple[str, float, list[str]]]:
    """Walk the folders with audio files, each once even if links form a cycle.

    Yields path, modification time and audio files of each folder. The subfolder with
    the results is `excluded`.
    """
    seen = set()
    if excluded != folder and excluded.is_dir():
        seen.add((excluded.stat().st_dev, excluded.stat().st_ino))
    for path, subfolders, names in os.walk(
        folder, followlinks=True, onerror=refuse_unreadable
    ):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        audio = [name for name in names if name.lower().endswith(AUDIO_SUFFIXES)]
        if audio:
            yield path, status.st_mtime, audio


def count_audio(folder: Path, excluded: Path) -> dict[str, float]:
    """Return the number of audio files, and when files were last added or removed."""
    files, newest = 0, 0.0
    for _, changed, names in walk_audio(folder, excluded):
        files += len(names)
        newest = max(newest, changed)
    return {"files": files, "newest_folder": newest}


def clip_of(stem: str, listed: Container[str]) -> str | None:
    """Return the id of the listed clip that a file belongs to, or None.

    The file name without suffix is the YouTube id, optionally with a leading ``Y`` and
    a trailing ``_<start>`` or ``_<start>_<end>``. Ids themselves may start with ``Y``
    and contain ``_`` and digits, so only `listed` tells where the id ends.
    """
    for _ in range(3):
        for name in (stem, stem.removeprefix("Y")):
            if name in listed:
                return name
        stem = _TIME.sub("", stem)
    return None


def find_files(folder: Path, excluded: Path, subsets: dict[str, Clips]) -> Listing:
    """Find the audio files of listed clips at any depth.

    If a clip has several files, the first path in alphabetical order is its file, and
    the rest are alternatives.
    """
    listed = ChainMap(*subsets.values())
    files: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    unlisted = 0
    for path, _, names in walk_audio(folder, excluded):
        prefix = Path(path).relative_to(folder)
        for name in names:
            clip = clip_of(os.path.splitext(name)[0], listed)
            if clip is None:
                unlisted += 1
            elif clip in files:
                others.setdefault(clip, []).append((prefix / name).as_posix())
            else:
                files[clip] = (prefix / name).as_posix()
    for clip, alternatives in others.items():
        first, *rest = sorted([files[clip], *alternatives])
        files[clip], others[clip] = first, rest
    duplicates = sum(map(len, others.values()))
    return Listing(subsets, files, others, duplicates=duplicates, unlisted=unlisted)
