"""A user's ``labels.csv``: the labels and the split of each recording."""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from own_data_recordings import UNUSABLE

from eat.errors import ManifestError

SUBSETS = {"train": "balanced_train", "eval": "eval"}  # by split


class LabeledFile(NamedTuple):
    """A line of ``labels.csv``: the subset that its file belongs to, and its labels."""

    subset: str
    labels: tuple[str, ...]


def _composed(text: str) -> str:
    """Return a text with composed accents; macOS decomposes those of file names."""
    return unicodedata.normalize("NFC", text)


def split_by_hash(file: str) -> str:
    """Return ``eval`` for about a fifth of all files, independent of other files."""
    digest = hashlib.sha256(_composed(file).encode()).digest()
    return "train" if int.from_bytes(digest, "big") % 5 else "eval"


def _column_names(path: Path, header: list[str]) -> list[str]:
    """Return the names of the columns; `label` is read as `labels`."""
    names = [name.strip().lower() for name in header]
    names = ["labels" if name == "label" else name for name in names]
    if not {"file", "labels"} <= set(names):
        raise ManifestError(
            f"{path}: its header is '{','.join(header)}' (write the columns file and "
            "labels, separated by commas)"
        )
    return names


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of ``labels.csv`` with their numbers."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval="")
            reader.fieldnames = _column_names(path, list(reader.fieldnames or ()))
            for row in reader:
                if None in row:
                    raise ManifestError(
                        f"{path}: line {reader.line_num}: more fields than in the "
                        "header (quote values that contain a comma)"
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path}: cannot be read ({error}; save it as CSV in UTF-8)"
        ) from None


def read_table(path: Path, files: Iterable[str]) -> dict[str, LabeledFile]:
    """Read ``labels.csv``, if there is one: columns file, labels, maybe split.

    `files` are the recordings, relative to its folder. Returns the lines by file,
    including files without labels. Raises `ManifestError` if the table is malformed or
    has no label at all.
    """
    if not path.is_file():
        return {}
    on_disk = {_composed(file): file for file in files}
    table: dict[str, LabeledFile] = {}
    for number, row in _read_lines(path):
        named = PurePosixPath(row["file"].strip()).as_posix()
        file = on_disk.get(_composed(named), named)
        # A dict drops labels that occur twice in a line.
        labels = dict.fromkeys(label.strip() for label in row["labels"].split(";"))
        split = row["split"].strip().lower() if "split" in row else split_by_hash(file)
        fault = None
        if file == "." or file in table:
            fault = f"file '{row['file']}' is empty or occurs twice (one line per file)"
        elif split not in SUBSETS:
            fault = f"split '{split}' (write train or eval)"
        elif bad := next(filter(UNUSABLE.search, labels), None):
            fault = f"label {bad!r} (rename it, without $ and line breaks)"
        if fault:
            raise ManifestError(f"{path}: line {number}: {fault}")
        table[file] = LabeledFile(SUBSETS[split], tuple(filter(None, labels)))
    if not any(line.labels for line in table.values()):
        raise ManifestError(f"{path}: no labels (fill them in, or remove the file)")
    return table
