"""What the prepare scripts of the small corpora share: find, list, write, warn."""

from __future__ import annotations

import csv
import json
import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eat.audio.io import AudioInfo
from eat.data.checking import Skipped, check_audio, reason_to_skip, write_skipped
from eat.data.manifest import (
    LABEL_COLUMNS,
    ManifestError,
    ManifestRow,
    atomic_open,
    write_manifest,
)

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
        Where `eat.data.checking.check_audio` keeps its verdicts.
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


def few(names: Iterable[object], shown: int = 5) -> str:
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
            "%d files left out, %s: %s (see %s)", len(files), kind, few(files), where
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
        The counts, and what `eat.data.checking.up_to_date` compares.
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
