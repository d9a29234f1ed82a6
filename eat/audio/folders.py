"""The audio files that somebody names: files, and those of folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import NoReturn

from eat.audio.io import AUDIO_SUFFIXES
from eat.errors import AudioError

logger = logging.getLogger(__name__)


def audio_files(paths: Iterable[str]) -> Iterator[str]:
    """Yield files as they are given, and the audio files below folders, sorted.

    Links to folders are followed, each folder once; hidden files and folders are
    skipped. Raises `AudioError` if a path is empty, or if a folder cannot be listed or
    has no audio files.
    """
    for path in paths:
        if not path:
            raise AudioError("the path of a file or folder is empty (give one)")
        if os.path.isdir(path):
            yield from _below(path)
        else:
            yield path


def _below(folder: str) -> list[str]:
    audio: list[str] = []
    hidden: list[str] = []
    others = 0
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        hidden += [os.path.join(place, n) for n in (*folders, *files) if n[0] == "."]
        folders[:] = sorted(name for name in folders if name[0] != ".")
        shown = [name for name in files if name[0] != "."]
        found = [name for name in shown if name.lower().endswith(AUDIO_SUFFIXES)]
        audio += [os.path.join(place, name) for name in found]
        others += len(shown) - len(found)
    if not audio:
        raise AudioError(
            f"{folder}: no audio files in it, {others} others (names such as "
            f"*{AUDIO_SUFFIXES[0]} are looked for; give other files one by one)"
        )
    if hidden:
        logger.warning(
            "%s: %d hidden files and folders skipped, such as %s",
            *(folder, len(hidden), hidden[0]),
        )
    return sorted(audio)


def _refuse(error: OSError) -> NoReturn:
    raise AudioError(
        f"{error.filename}: cannot be listed, {error.strerror} (check its permissions)"
    )
