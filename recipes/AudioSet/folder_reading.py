"""What the user's own folder holds: recordings and, perhaps, ``labels.csv``."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from eat.errors import ManifestError

logger = logging.getLogger(__name__)

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
LABELS = "labels.csv"
SUBSETS = {"train": "balanced_train", "eval": "eval"}  # by split

#: Text that a manifest cannot hold: SpeechBrain takes "$name" for a variable and drops
#: leading spaces; names on a disk may hold line breaks and what is not UTF-8.
UNUSABLE = re.compile(r"\$[\w.]|^\s|[\x00-\x1f\ud800-\udfff]")


class Labeled(NamedTuple):
    """A line of ``labels.csv``: the manifest its file belongs to, and its labels."""

    subset: str
    labels: tuple[str, ...]


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


def _composed(text: str) -> str:
    """Return a text with composed accents; macOS decomposes those of file names."""
    return unicodedata.normalize("NFC", text)


def split_by_hash(file: str) -> str:
    """Put about a fifth of all files into ``eval``, each whatever the others are."""
    digest = hashlib.sha256(_composed(file).encode()).digest()
    return "train" if int.from_bytes(digest, "big") % 5 else "eval"


def _check_header(path: Path, header: list[str]) -> list[str]:
    """Return the names of the columns; `label` is taken for `labels`."""
    names = [name.strip().lower() for name in header]
    names = ["labels" if name == "label" else name for name in names]
    if not {"file", "labels"} <= set(names):
        raise ManifestError(
            f"{path}: its header is '{','.join(header)}' (columns file and labels are "
            "needed, separated by commas)"
        )
    return names


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of ``labels.csv`` with their numbers."""
    try:
        # utf-8-sig: spreadsheets put a mark before the text.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval="")
            reader.fieldnames = _check_header(path, list(reader.fieldnames or ()))
            for row in reader:
                if None in row:
                    raise ManifestError(
                        f"{path}: line {reader.line_num}: more fields than the header "
                        "has (put quotes around a value that holds a comma)"
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path}: cannot be read ({error}; save it as CSV in UTF-8)"
        ) from None


def read_table(path: Path, files: Iterable[str]) -> dict[str, Labeled]:
    """Read ``labels.csv``.

    Parameters
    ----------
    path : Path
        CSV file with columns ``file``, ``labels`` and perhaps ``split``.
    files : iterable of str
        The recordings that are there, as paths below the folder of `path`.

    Returns
    -------
    dict of str to Labeled
        Its lines by file; a file without labels is one too.

    Raises
    ------
    ManifestError
        If it is malformed or holds no label at all.
    """
    on_disk = {_composed(file): file for file in files}
    table: dict[str, Labeled] = {}
    for number, row in _lines(path):
        named = PurePosixPath(row["file"].strip()).as_posix()
        file = on_disk.get(_composed(named), named)
        # A label that stands twice in a line is one label.
        labels = dict.fromkeys(label.strip() for label in row["labels"].split(";"))
        split = row["split"].strip().lower() if "split" in row else split_by_hash(file)
        fault = None
        if file == "." or file in table:
            fault = f"file '{row['file']}' is empty or stands twice (one line a file)"
        elif split not in SUBSETS:
            fault = f"split '{split}' (write train or eval)"
        elif bad := next(filter(UNUSABLE.search, labels), None):
            fault = f"label {bad!r} (rename it, without $ and line breaks)"
        if fault:
            raise ManifestError(f"{path}: line {number}: {fault}")
        table[file] = Labeled(SUBSETS[split], tuple(filter(None, labels)))
    if not any(line.labels for line in table.values()):
        raise ManifestError(f"{path}: no label in it (fill it in, or remove it)")
    return table
