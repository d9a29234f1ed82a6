"""The forms in which people have AudioSet: what each must tell, and how audio is found.

A layout lists the clips of each subset with their labels and files. There are three:
`audioset_lists`, `audioset_tsv` and `audioset_parquet`.
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_TIME = re.compile(r"_\d+(\.\d+)?$")

Clips = dict[str, tuple[str, ...]]  # label ids by clip id


@dataclass(frozen=True)
class Listing:
    """The clips of a corpus.

    Attributes
    ----------
    subsets : dict of str to Clips
        Label ids by clip id, by subset.
    files : dict of str to str
        File by clip id, below the data folder or absolute; clips without one are
        missing.
    faults : dict of str to str
        Why a clip cannot be used, whatever its file is.
    others : dict of str to list of str
        Further files of clips that have several, by clip id.
    duplicates : int
        Audio files left aside, as their clip has another.
    unlisted : int
        Audio files that belong to no listed clip.
    """

    subsets: dict[str, Clips]
    files: dict[str, str]
    faults: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    duplicates: int = 0
    unlisted: int = 0


class Layout(Protocol):
    """One of the forms in which people have AudioSet."""

    labels: Path  # the list of classes

    def __str__(self) -> str:
        """Say what was found, for the log."""

    def inputs(self) -> dict[str, object]:
        """Return facts that change when the corpus does; quick, as each start asks."""

    def outputs(self) -> list[str]:
        """Return the files in the save folder that `read` makes."""

    def read(self) -> Listing:
        """List the clips, after unpacking them where need be."""


def stamps(*paths: Path) -> dict[str, list[float]]:
    """Return size and time of change of files, by name.

    Parameters
    ----------
    *paths : Path
        Files that exist.

    Returns
    -------
    dict of str to list of float
        Size in bytes and time in seconds.
    """
    stats = {path.name: path.stat() for path in paths}
    return {name: [stat.st_size, stat.st_mtime] for name, stat in stats.items()}


@cache
def split_labels(text: str) -> tuple[str, ...]:
    """Split label ids at commas; clips with equal labels share them in memory.

    Parameters
    ----------
    text : str
        E.g. ``/m/09x0r,/m/05zppz``.

    Returns
    -------
    tuple of str
        The label ids.
    """
    return tuple(filter(None, text.split(",")))


def walk_audio(folder: Path, but: Path) -> Iterator[tuple[str, float, list[str]]]:
    """Walk the folders that hold audio, each once even where links make circles.

    Parameters
    ----------
    folder : Path
        Where to start.
    but : Path
        Folder below it that is left out, the one with the results.

    Yields
    ------
    tuple of str, float and list of str
        Path of a folder, time of its last change, and the audio files in it.
    """
    seen = set()
    if but != folder and but.is_dir():
        seen.add((but.stat().st_dev, but.stat().st_ino))
    for path, subfolders, names in os.walk(folder, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        audio = [name for name in names if name.lower().endswith(SUFFIXES)]
        if audio:
            yield path, status.st_mtime, audio


def count_audio(folder: Path, but: Path) -> dict[str, float]:
    """Count audio files; the answer changes when files come or go.

    Parameters
    ----------
    folder, but : Path
        As for `walk_audio`.

    Returns
    -------
    dict of str to float
        Number of files, and the last change of a folder that holds some.
    """
    files, newest = 0, 0.0
    for _, changed, names in walk_audio(folder, but):
        files += len(names)
        newest = max(newest, changed)
    return {"files": files, "newest_folder": newest}


def clip_of(stem: str, listed: Container[str]) -> str | None:
    """Find the clip that a file belongs to.

    Parameters
    ----------
    stem : str
        File name without suffix: the YouTube id, perhaps with a ``Y`` before it and
        ``_<start>`` or ``_<start>_<end>`` after it. Ids may begin with ``Y`` and hold
        ``_`` and digits themselves, so only `listed` tells where the id ends.
    listed : container of str
        The ids of the list.

    Returns
    -------
    str or None
        The id; None if no reading of the name is in the list.
    """
    for _ in range(3):
        for name in (stem, stem.removeprefix("Y")):
            if name in listed:
                return name
        stem = _TIME.sub("", stem)
    return None


def find_files(folder: Path, but: Path, subsets: dict[str, Clips]) -> Listing:
    """Find the audio of listed clips at any depth.

    Of several files of one clip, the one whose path comes first in the alphabet stands
    first, and the others are named in that order.

    Parameters
    ----------
    folder, but : Path
        As for `walk_audio`.
    subsets : dict of str to Clips
        The listed clips.

    Returns
    -------
    Listing
        The clips with their files, named from `folder`.
    """
    listed = ChainMap(*subsets.values())
    files: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    unlisted = 0
    for path, _, names in walk_audio(folder, but):
        below = Path(path).relative_to(folder).as_posix()
        for name in names:
            clip = clip_of(os.path.splitext(name)[0], listed)
            if clip is None:
                unlisted += 1
                continue
            file = name if below == "." else f"{below}/{name}"
            if clip in files:
                others.setdefault(clip, []).append(file)
            else:
                files[clip] = file
    for clip, further in others.items():
        files[clip], *further[:] = sorted([files[clip], *further])
    duplicates = sum(map(len, others.values()))
    return Listing(subsets, files, {}, others, duplicates, unlisted)
