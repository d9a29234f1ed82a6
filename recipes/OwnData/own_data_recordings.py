"""The recordings in a user's folder."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from eat.errors import ManifestError

logger = logging.getLogger(__name__)

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
LABELS = "labels.csv"

#: Text that a manifest cannot hold: SpeechBrain takes "$name" for a variable and drops
#: leading spaces; names on a disk may hold line breaks and what is not UTF-8.
UNUSABLE = re.compile(r"\$[\w.]|^\s|[\x00-\x1f\ud800-\udfff]")


def _walk(data_folder: Path, skip_step: Path) -> Iterator[str]:
    """Yield all files below a folder, links followed, hidden ones left out."""
    seen = {os.path.realpath(skip_step)}
    for folder, subfolders, names in os.walk(data_folder, followlinks=True):
        seen.add(os.path.realpath(folder))
        # A link to a folder above would lead round in circles.
        subfolders[:] = [
            name
            for name in subfolders
            if name[0] != "." and os.path.realpath(f"{folder}/{name}") not in seen
        ]
        below = Path(folder).relative_to(data_folder)
        yield from ((below / name).as_posix() for name in names if name[0] != ".")


def find_recordings(data_folder: Path, save_folder: Path) -> list[str]:
    """Find all recordings in a folder and below.

    Parameters
    ----------
    data_folder : Path
        The folder.
    save_folder : Path
        Where the manifests go; it is not searched.

    Returns
    -------
    list of str
        Paths below `data_folder`, sorted.

    Raises
    ------
    ManifestError
        If there is no such folder or no recording, or both folders are one.
    """
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")
    if data_folder.resolve() == save_folder.resolve():
        raise ManifestError(
            f"{save_folder}: is the folder of the recordings, whose {LABELS} would be "
            "overwritten (choose another save_folder)"
        )
    files, others = [], Counter()
    for file in _walk(data_folder, skip_step=save_folder):
        suffix = os.path.splitext(file)[1].lower()
        if suffix in SUFFIXES:
            files.append(file)
        elif file != LABELS:
            others[suffix or "without suffix"] += 1
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    if not files:
        raise ManifestError(
            f"{data_folder}: no wav, flac, ogg or mp3 file in it or below, but "
            f"{kinds or 'nothing'} (check data_folder, or convert the recordings)"
        )
    if kinds:
        logger.info("%s: files of other kinds are ignored: %s", data_folder, kinds)
    return sorted(files)
