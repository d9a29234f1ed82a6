"""The audio files that a command is given: files, and those of folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NoReturn

from eat.audio.io import AUDIO_SUFFIXES
from eat.errors import AudioError


def audio_files(paths: Iterable[str]) -> Iterator[str]:
    """Yield files as they are given, and the audio files below folders, sorted.

    Hidden files and folders are skipped. Raises `AudioError` if a folder cannot be
    listed or has no audio files.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        else:
            yield path


def _below(folder: str) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        names = (name for name in sorted(files) if name[0] != ".")
        audio = (name for name in names if name.lower().endswith(AUDIO_SUFFIXES))
        found += [os.path.join(place, name) for name in audio]
    if not found:
        raise AudioError(
            f"{folder}: no audio files in it (files with names such as "
            f"*{AUDIO_SUFFIXES[0]} are looked for; give others one by one)"
        )
    return found


def _refuse(error: OSError) -> NoReturn:
    raise AudioError(
        f"{error.filename}: cannot be listed, {error.strerror} (check its permissions)"
    )
