"""What every prepare script does: check all audio once, say what was left out.

Checking resumes: each verdict is appended to a cache beside the manifests, and a file
whose size and time of change are as they were is not opened again.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from eat.audio.io import AudioInfo, inspect_many
from eat.data.manifest import LABEL_COLUMNS, ManifestRow, write_manifest
from eat.errors import AudioError, AudioNotFoundError, ManifestError
from eat.utils.files import atomic_open

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


logger = logging.getLogger(__name__)

UNPACKERS = {".zip": "unzip -q {} -d {}", ".tar.gz": "tar -xzf {} -C {}"}


def find_corpus(data_folder: Path, name: str, landmark: str) -> str:
    """Find a corpus that is a folder or lies in it.

    Parameters
    ----------
    data_folder : Path
        The corpus or its parent.
    name : str
        The folder name of the corpus.
    landmark : str
        A file that the corpus must hold.

    Returns
    -------
    str
        What leads from `data_folder` to the corpus: ``""`` or ``"<name>/"``.

    Raises
    ------
    ManifestError
        If the corpus is not there; where it is there as an archive, with the command
        that unpacks it.
    """
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")
    for below in ("", f"{name}/"):
        if (data_folder / below / landmark).is_file():
            return below
    for ending, unpacker in UNPACKERS.items():
        for archive in sorted(data_folder.glob(f"*{ending}")):
            places = (shlex.quote(str(path)) for path in (archive, data_folder))
            command = unpacker.format(*places)
            raise ManifestError(f"{archive}: not unpacked yet (unpack it: {command})")
    raise ManifestError(
        f"{data_folder}: no {landmark} in it or in {name}/ "
        f"(data_folder must be the unpacked {name})"
    )


def list_files(root: Path, folders: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """List the files directly in some folders, without hidden ones.

    Parameters
    ----------
    root : Path
        Where the folders lie.
    folders : iterable of str
        Paths below `root`; one that does not exist has no files.

    Returns
    -------
    tuple
        The files below `root`, sorted, and facts that change when a file comes, goes or
        is replaced: ``files``, ``bytes`` and ``newest``, a time of change in ns.
    """
    files, total, newest = [], 0, 0
    for folder in folders:
        if not (root / folder).is_dir():
            continue
        newest = max(newest, os.stat(root / folder).st_mtime_ns)
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name[0] != "." and entry.is_file():
                    status = entry.stat()
                    files.append(f"{folder}/{entry.name}")
                    total += status.st_size
                    newest = max(newest, status.st_mtime_ns)
    return sorted(files), {"files": len(files), "bytes": total, "newest": newest}


def check_listed(
    root: Path,
    listed: Mapping[str, tuple[str, str]],
    found: Iterable[str],
    cache: Path,
    min_samples: int,
) -> tuple[dict[str, AudioInfo], list[Skipped]]:
    """Divide the files that a corpus lists into usable ones and skipped ones.

    Parameters
    ----------
    root : Path
        Folder that the files lie in.
    listed : mapping of str to tuple
        Id and subset of each file that should be there.
    found : iterable of str
        The files that are there.
    cache : Path
        Where `eat.data.prepare.check_audio` keeps its verdicts.
    min_samples : int
        The shortest length, in samples at the rate of the file.

    Returns
    -------
    tuple
        The headers of the usable files, and the others with the reason; both in the
        order of `listed`.
    """
    present = set(found)
    headers = check_audio(root, [file for file in listed if file in present], cache)
    usable, skipped = {}, []
    for file, (id_, subset) in listed.items():
        reason = "missing"
        if file in headers:
            reason = reason_to_skip(headers[file], file, min_samples)
        if reason:
            skipped.append(Skipped(id_, file, subset, reason))
        else:
            usable[file] = headers[file]
    return usable, skipped


def abbreviate(names: Iterable[object], shown: int = 5) -> str:
    """Join the first names and count the others: ``a, b and 7 more``.

    Parameters
    ----------
    names : iterable
        What to name.
    shown : int
        How many at most.

    Returns
    -------
    str
        One line.
    """
    texts = [str(name) for name in names]
    rest = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + rest


def _warn_of_skipped(skipped: Sequence[Skipped], where: Path) -> None:
    """Log a line per kind of reason, with the first files that it befell."""
    kinds: dict[str, list[str]] = {}
    for clip in skipped:
        kinds.setdefault(clip.reason.partition(":")[0], []).append(clip.file)
    for kind, files in kinds.items():
        logger.warning(
            "%d files left out, %s: %s (see %s)",
            len(files),
            kind,
            abbreviate(files),
            where,
        )


def write_prepared(
    save_folder: Path,
    manifests: Mapping[str, Sequence[ManifestRow]],
    labels: Sequence[str],
    skipped: Sequence[Skipped],
    summary: Mapping[str, object],
) -> None:
    """Write all results, each atomically, and warn of the files left out.

    Parameters
    ----------
    save_folder : Path
        Receives ``<name>.csv`` per manifest, ``labels.csv``, ``skipped.csv`` and, last,
        so that it stands for a complete set, ``summary.json``.
    manifests : mapping of str to sequence of ManifestRow
        The manifests by name.
    labels : sequence of str
        Ids of the classes, in order; their names for people have spaces for ``_``.
    skipped : sequence of Skipped
        The files left out.
    summary : mapping
        The counts, and what `eat.data.prepare.up_to_date` compares.
    """
    (save_folder / "summary.json").unlink(missing_ok=True)
    for name, rows in manifests.items():
        write_manifest(save_folder / f"{name}.csv", rows)
    with atomic_open(save_folder / "labels.csv") as file:
        writer = csv.writer(file)
        writer.writerow(LABEL_COLUMNS)
        for index, label in enumerate(labels):
            writer.writerow((index, label, label.replace("_", " ")))
    write_skipped(save_folder / "skipped.csv", skipped)
    _warn_of_skipped(skipped, save_folder / "skipped.csv")
    with atomic_open(save_folder / "summary.json") as file:
        json.dump(summary, file, indent=2)
