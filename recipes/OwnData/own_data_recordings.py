"""The recordings in a user's folder."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from eat.data.prepare import require_folder
from eat.errors import ManifestError

logger = logging.getLogger(__name__)

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
LABELS = "labels.csv"

#: Text that a manifest cannot hold: SpeechBrain takes "$name" for a variable and strips
#: leading spaces; file names may contain line breaks and bytes that are not UTF-8.
UNUSABLE = re.compile(r"\$[\w.]|^\s|[\x00-\x1f\ud800-\udfff]")


def _walk(data_folder: Path, excluded: Path) -> Iterator[str]:
    """Yield all files below a folder, following links; hidden ones are skipped."""
    seen = {os.path.realpath(excluded)}
    for folder, subfolders, names in os.walk(data_folder, followlinks=True):
        seen.add(os.path.realpath(folder))
        # A link to a parent folder would never end.
        subfolders[:] = [
            name
            for name in subfolders
            if name[0] != "." and os.path.realpath(f"{folder}/{name}") not in seen
        ]
        relative = Path(folder).relative_to(data_folder)
        yield from ((relative / name).as_posix() for name in names if name[0] != ".")


def find_recordings(data_folder: Path, save_folder: Path) -> list[str]:
    """Return all recordings in a folder and its subfolders, as sorted relative paths.

    The folder of the results is not searched. Raises `ManifestError` if there is no
    data folder or no recording, or the two folders are the same.
    """
    require_folder(data_folder)
    if data_folder.resolve() == save_folder.resolve():
        raise ManifestError(
            f"{save_folder}: is the folder of the recordings, whose {LABELS} would be "
            "overwritten (choose another save_folder)"
        )
    files: list[str] = []
    others: Counter[str] = Counter()
    for file in _walk(data_folder, excluded=save_folder):
        suffix = os.path.splitext(file)[1].lower()
        if suffix in SUFFIXES:
            files.append(file)
        elif file != LABELS:
            others[suffix or "without suffix"] += 1
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    if not files:
        raise ManifestError(
            f"{data_folder}: no wav, flac, ogg or mp3 file, only {kinds or 'nothing'} "
            "(check data_folder, or convert the recordings)"
        )
    if kinds:
        logger.info("%s: other files are ignored: %s", data_folder, kinds)
    return sorted(files)
