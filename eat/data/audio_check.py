"""The audio files of a corpus, each checked once."""

from __future__ import annotations

import csv
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, TextIO

from tqdm import tqdm

from eat.audio.io import AudioInfo, inspect_many
from eat.data.corpus_folder import Stamp, file_stamps
from eat.errors import AudioError, AudioNotFoundError, ManifestError
from eat.utils.files import atomic_path

MISSING = "missing"
CACHE = "checked.csv"
PARTS = "checked_parts"  # a folder of files like the cache, see `eat.data.check_parts`
COLUMNS = "file size mtime sample_rate frames channels warnings error".split()
_BATCH = 8192  # files
_FILES_PER_TASK = 64
_THREADS = 32  # more than cores: they mostly wait for the disk

Verdict = AudioInfo | str  # what is in a file, or why it cannot be used
Known = dict[str, tuple[Stamp, Verdict]]

# Millions of clips have few distinct lengths, so that equal records share memory.
_shared_info = lru_cache(maxsize=65536)(AudioInfo)


class Checked(NamedTuple):
    """A file that was checked: a row of the cache."""

    file: str
    stamp: Stamp
    verdict: Verdict
    new: bool = True  # not known before


def check_audio(
    root: Path, files: Iterable[str], save_folder: Path
) -> dict[str, Verdict]:
    """Check many files in parallel, see `inspect_audio`, with a progress bar.

    The results are appended to ``checked.csv`` in the save folder: an interrupted check
    resumes, and a good file is not opened again unless its size or modification time
    changes. Nor is one that a part has checked, see `eat.data.check_parts`. The files
    are relative to `root` or absolute. For each, returns what is in it, or the reason
    to skip it: ``missing`` or ``unreadable: ...``.
    """
    verdicts: dict[str, Verdict] = dict.fromkeys(files, "")
    cache = save_folder / CACHE
    known = found = _read_parts(save_folder, verdicts)
    if len(found) < len(verdicts):
        known = _read_cache(cache, verdicts) | found
    if found:
        rows = (Checked(file, *known[file]) for file in verdicts if file in known)
        write_checked(cache, rows)
    with (
        _open_cache(cache, "a") as log,
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(verdicts), unit="file", desc="checking", disable=None) as bar,
    ):
        writer = csv.writer(log, lineterminator="\n")
        if log.tell() == 0:
            writer.writerow(COLUMNS)
        for batch in slices(list(verdicts), _BATCH):
            for checked in check_batch(root, batch, known, pool):
                verdicts[checked.file] = checked.verdict
                if checked.new:
                    writer.writerow(_row(checked))
                bar.update()
    return verdicts


def check_batch(
    root: Path, files: Sequence[str], known: Known, pool: ThreadPoolExecutor
) -> Iterator[Checked]:
    """Check some files; what is known of those that have not changed is removed."""
    paths = {file: os.path.join(root, file) for file in files}
    tasks = slices(list(paths.values()), _FILES_PER_TASK)
    stamps = chain.from_iterable(pool.map(file_stamps, tasks))
    changed = {}
    for file, stamp in zip(paths, stamps, strict=True):
        earlier = known.pop(file, None)
        if earlier and earlier[0] == stamp:
            yield Checked(file, *earlier, new=False)
        else:
            changed[file] = stamp
    results = inspect_many([paths[file] for file in changed])
    for (file, stamp), result in zip(changed.items(), results, strict=True):
        if isinstance(result, AudioError):
            yield Checked(file, stamp, skip_reason(result, paths[file]))
        else:
            yield Checked(file, stamp, result)


def skip_reason(error: AudioError, path: str) -> str:
    """Return the reason to skip a clip from the error that reading its file raised."""
    if isinstance(error, AudioNotFoundError):
        return MISSING
    return f"unreadable: {str(error).removeprefix(f'{Path(path)}: ')}"


def write_checked(path: Path, checked: Iterable[Checked]) -> None:
    """Write a file like the cache, atomically."""
    with atomic_path(path) as temporary, _open_cache(temporary, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(chain([COLUMNS], map(_row, checked)))


def _row(checked: Checked) -> tuple[object, ...]:
    file, stamp, found, _ = checked
    if isinstance(found, str):
        return (file, *stamp, "", "", "", "", found)
    header = found.sample_rate, found.num_frames, found.channels
    return (file, *stamp, *header, "; ".join(found.warnings), "")


def _open_cache(cache: Path, mode: Literal["r", "a", "w"]) -> TextIO:
    return open(cache, mode, encoding="utf-8", errors="surrogateescape", newline="")


def _read_parts(save_folder: Path, files: Container[str]) -> Known:
    """Return what parts have found."""
    known: Known = {}
    for path in sorted((save_folder / PARTS).glob("[!.]*.csv")):
        known |= _read(path, files, errors=True)
    return known


def _read_cache(cache: Path, files: Container[str]) -> Known:
    """Return the stamp and header of the files whose last check succeeded."""
    if not cache.exists():
        return {}
    _drop_partial_line(cache)
    return _read(cache, files, errors=False)


def _read(path: Path, files: Container[str], errors: bool) -> Known:
    """Read a file like the cache; files with errors may be repaired, or count."""
    known: Known = {}
    try:
        with _open_cache(path, "r") as lines:
            reader = csv.reader(lines)
            if next(reader, COLUMNS) != COLUMNS:  # of an earlier version
                path.unlink()
                return known
            for file, size, mtime, *header, warnings, error in reader:
                if file not in files:
                    continue
                stamp = int(size), int(mtime)
                if error and not errors:
                    known.pop(file, None)
                elif error:
                    known[file] = stamp, error
                else:
                    found = tuple(filter(None, warnings.split("; ")))
                    known[file] = stamp, _shared_info(*map(int, header), found)
    except FileNotFoundError:  # another process has joined the parts
        return {}
    except (ValueError, csv.Error):
        raise ManifestError(
            f"{path}: corrupt (delete it to check its files again)"
        ) from None
    return known


def _drop_partial_line(cache: Path) -> None:
    """Remove the last line of a cache if a killed process wrote only part of it."""
    with open(cache, "rb+") as file:
        start = max(0, file.seek(0, os.SEEK_END) - 65536)
        file.seek(start)
        file.truncate(start + file.read().rfind(b"\n") + 1)


def slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the items in lists of one size, of which the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
