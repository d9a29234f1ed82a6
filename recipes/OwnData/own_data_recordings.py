"""The recordings in a user's folder, and their names."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from eat.audio.io import AUDIO_SUFFIXES
from eat.data.corpus_folder import require_folder
from eat.data.prepare import abbreviate
from eat.errors import ManifestError

logger = logging.getLogger(__name__)

LABELS = "labels.csv"

#: Text that a manifest cannot hold: SpeechBrain takes "$name" for a variable and strips
#: leading spaces; file names may contain line breaks and bytes that are not UTF-8.
UNUSABLE = re.compile(r"\$[\w.]|^\s|[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")

# Names of segments: <id>_30-40, and AudioSet's Y<id>_30.000_40.000, _30_40, _30.000.
_RANGE = re.compile(r"(.+)_(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
_YOUTUBE = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?")


def composed(text: str) -> str:
    """Return a text with composed accents; macOS decomposes those of file names."""
    return unicodedata.normalize("NFC", text)


def is_audio(file: str) -> bool:
    """Return whether a file has the suffix of an audio format."""
    return os.path.splitext(file)[1].lower() in AUDIO_SUFFIXES


def segment_of(file: str) -> tuple[str, float | None]:
    """Return the source of a recording and, if its name has it, where it starts.

    Of ``dog/x_30-40.wav`` they are ``x`` and 30. The start is in seconds, or in
    milliseconds where AudioSet's names have those.
    """
    stem = composed(os.path.splitext(os.path.basename(file))[0])
    if (match := _RANGE.fullmatch(stem)) and float(match[2]) < float(match[3]):
        name = match[1]
        return name[1:] if re.fullmatch(r"Y[\w-]{11}", name) else name, float(match[2])
    if match := _YOUTUBE.fullmatch(stem):
        name, start, end = match.groups()
        # AudioSet's segments take 10 s. Other numbers, as in kitchen_fan_1_2, say
        # nothing about time.
        length = float(end) - float(start) if end else None
        if start and ("." in start or length in (10, 10_000)):
            return name, float(start) / (1000 if length == 10_000 else 1)
        if not start:
            return name, None
    return stem, None


def source_of(file: str) -> str:
    """Return what the segments of one recording have in common, else the path."""
    name, start = segment_of(file)
    return composed(file) if start is None else name


def name_clips(files: Iterable[str]) -> dict[str, str]:
    """Return a unique id for each file: its path, without suffix if that is unique."""
    stems = {file: os.path.splitext(file)[0] for file in files}
    taken = Counter([*stems.values(), *stems])
    return {file: stem if taken[stem] == 1 else file for file, stem in stems.items()}


def _walk(data_folder: Path, excluded: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders and their files, which are hidden ones excepted.

    Each folder occurs once, under its own path rather than that of a link to it.
    """
    seen = {os.path.realpath(excluded)}
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        path = os.path.join(data_folder, folder)
        if (real := os.path.realpath(path)) in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise ManifestError(
                f"{path}: cannot be read, {error.strerror} (change its permissions)"
            ) from None
        files = []
        for entry in found:
            if entry.name[0] == ".":
                continue
            if not os.path.isdir(entry) if entry.is_symlink() else not entry.is_dir():
                files.append(folder + entry.name)
            else:
                queue = links if entry.is_symlink() else folders
                queue.append(f"{folder}{entry.name}/")
        yield folder, files


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
    folders: set[str] = set()
    for folder, found in _walk(data_folder, excluded=save_folder):
        folders.add(folder.partition("/")[0])
        for file in found:
            if is_audio(file):
                files.append(file)
            elif file != LABELS:
                others[os.path.splitext(file)[1].lower() or "without suffix"] += 1
    kinds = abbreviate(f"{count} {suffix}" for suffix, count in others.most_common())
    if not files:
        raise ManifestError(
            f"{data_folder}: no audio file such as .wav, .flac, .ogg or .mp3, only "
            f"{kinds or 'nothing'} (check data_folder, or convert the recordings)"
        )
    if kinds:
        logger.info("%s: other files are ignored: %s", data_folder, kinds)
    if empty := sorted(folders - {"", *(file.partition("/")[0] for file in files)}):
        logger.warning("%s: folders without audio: %s", data_folder, abbreviate(empty))
    return sorted(files)
