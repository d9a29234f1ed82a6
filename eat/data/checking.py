"""What every prepare script does: check all audio once, say what was left out.

Checking resumes: each verdict is appended to a cache beside the manifests, and a file
whose size and time of change are as they were is not opened again.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from eat.audio.io import AudioError, AudioInfo, AudioNotFoundError, inspect_many
from eat.data.manifest import ManifestError, atomic_open

CACHE_COLUMNS = "file size mtime sample_rate frames channels error".split()
MISSING = "missing"
_FILES_AT_ONCE = 8192
_FILES_PER_TASK = 64
_THREADS = 32  # they wait for the disk, so more of them than cores

# How the cache is opened; file names need not be UTF-8.
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}

Stamp = tuple[int, int]  # size in bytes, time of change in ns
Known = tuple[Stamp, AudioInfo]

# Millions of clips share a few lengths; so do their records in memory.
_shared_info = lru_cache(maxsize=65536)(AudioInfo)


class Skipped(NamedTuple):
    """A clip that no manifest holds, as a line of ``skipped.csv``."""

    id: str
    file: str
    subset: str
    reason: str


def write_skipped(path: str | os.PathLike[str], skipped: Iterable[Skipped]) -> None:
    """Write the clips left out and why as CSV, atomically.

    Parameters
    ----------
    path : str or PathLike
        CSV file to write.
    skipped : iterable of Skipped
        The clips.
    """
    with atomic_open(path) as file:
        csv.writer(file).writerows([Skipped._fields, *skipped])


def make_save_folder(folder: Path) -> None:
    """Make the folder for the results, and find out now whether it can be written.

    Parameters
    ----------
    folder : Path
        Where manifests go.

    Raises
    ------
    ManifestError
        If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ManifestError(
            f"{folder}: cannot be written, {error.strerror} "
            "(choose another save_folder)"
        ) from None


def up_to_date(
    save_folder: Path, inputs: Mapping[str, object], outputs: Sequence[str]
) -> bool:
    """Return whether the results of an earlier run on the same inputs are there.

    Parameters
    ----------
    save_folder : Path
        Where manifests go; its ``summary.json`` holds what it was made from.
    inputs : mapping of str to object
        What decides the results, e.g. options, sizes and times of lists.
    outputs : sequence of str
        File names in `save_folder` that must exist.

    Returns
    -------
    bool
        True if there is nothing to do.
    """
    try:
        summary = json.loads((save_folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    same = summary.get("inputs") == json.loads(json.dumps(inputs))
    return same and all((save_folder / name).is_file() for name in outputs)


def reason_to_skip(
    verdict: AudioInfo | AudioError, file: str, min_samples: int = 1
) -> str | None:
    """Say why a checked file cannot be used.

    Parameters
    ----------
    verdict : AudioInfo or AudioError
        What `check_audio` found.
    file : str
        The file, as given to `check_audio`.
    min_samples : int
        The shortest length, in samples at the rate of the file.

    Returns
    -------
    str or None
        ``missing``, ``unreadable: ...`` or ``too short: ...``; None if it can be used.
    """
    if isinstance(verdict, AudioNotFoundError):
        return MISSING
    if isinstance(verdict, AudioError):
        return f"unreadable: {str(verdict).rpartition(f'{file}: ')[2]}"
    if verdict.num_frames < min_samples:
        return f"too short: {verdict.num_frames} samples, {min_samples} needed"
    return None


def _read_cache(cache: Path, files: Iterable[str]) -> dict[str, Known | None]:
    """Return stamp and info by file, None where the cache has no good verdict.

    Errors are not taken from the cache: a file that could not be read for want of
    permission has the same size and time when it can.
    """
    known: dict[str, Known | None] = dict.fromkeys(files)
    if not cache.exists():
        return known
    try:
        with open(cache, **_TEXT) as lines:
            reader = csv.reader(lines)
            next(reader, None)
            for file, size, mtime, *header, error in reader:
                if file in known:
                    stamp = int(size), int(mtime)
                    info = None if error else _shared_info(*map(int, header))
                    known[file] = info and (stamp, info)
    except (ValueError, csv.Error):
        raise ManifestError(
            f"{cache}: damaged (delete it; all audio is then checked again)"
        ) from None
    return known


def _drop_torn_line(cache: Path) -> None:
    """Cut off the last line of a cache where a kill left half of it."""
    if cache.exists():
        with open(cache, "rb+") as file:
            start = max(0, file.seek(0, os.SEEK_END) - 65536)
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


def _stamps(paths: Sequence[str]) -> list[Stamp]:
    """Return size and time of change of each file, zeros where there is none."""
    stamps = []
    for path in paths:
        try:
            status = os.stat(path)
            stamps.append((status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((0, 0))
    return stamps


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unchanged(known: Known | None, stamp: Stamp) -> AudioInfo | None:
    """Return the known verdict on a file that is still as it was."""
    return known[1] if known is not None and known[0] == stamp else None


def _row(
    file: str, path: str, stamp: Stamp, verdict: AudioInfo | AudioError
) -> tuple[object, ...]:
    """Return a line of the cache."""
    if isinstance(verdict, AudioError):
        return (file, *stamp, "", "", "", str(verdict).removeprefix(f"{path}: "))
    header = (verdict.sample_rate, verdict.num_frames, verdict.channels)
    return (file, *stamp, *header, "")


def check_audio(
    root: Path, files: Sequence[str], cache: Path
) -> dict[str, AudioInfo | AudioError]:
    """Inspect the headers of many files in parallel, with a progress bar; resumable.

    Parameters
    ----------
    root : Path
        Folder that relative files lie in.
    files : sequence of str
        Audio files, relative to `root` or absolute.
    cache : Path
        CSV file with the verdicts so far (``checked.csv`` beside the manifests). It is
        made if need be and appended to.

    Returns
    -------
    dict of str to AudioInfo or AudioError
        What `eat.audio.io.inspect_audio` returns or raises, by file, in order.

    Raises
    ------
    ManifestError
        If the cache is damaged.
    """
    _drop_torn_line(cache)
    known = _read_cache(cache, files)
    files = list(known)  # each once
    verdicts: dict[str, AudioInfo | AudioError] = {}
    with (
        open(cache, "a", **_TEXT) as log,
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(files), unit="file", desc="checking", disable=None) as bar,
    ):
        writer = csv.writer(log, lineterminator="\n")
        if log.tell() == 0:
            writer.writerow(CACHE_COLUMNS)
        for batch in _slices(files, _FILES_AT_ONCE):
            paths = [os.path.join(root, file) for file in batch]
            stamps = chain.from_iterable(
                pool.map(_stamps, _slices(paths, _FILES_PER_TASK))
            )
            tasks = [
                (file, path, stamp, _unchanged(known.pop(file), stamp))
                for file, path, stamp in zip(batch, paths, stamps, strict=True)
            ]
            new = inspect_many([path for _, path, _, info in tasks if info is None])
            for file, path, stamp, info in tasks:
                if info is None:
                    info = next(new)
                    writer.writerow(_row(file, path, stamp, info))
                verdicts[file] = info
                bar.update()
    return verdicts
