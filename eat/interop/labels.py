"""Names of classes: files that list them, and the names of AudioSet's."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any

from eat.errors import ManifestError
from eat.utils.text import clean, read_lines

LABELS = "labels.json"
AUDIOSET = Path(__file__).with_name("audioset_labels.csv")
AUDIOSET_CLASSES = 527
NAME_COLUMNS = ("display_name", "name", "label")
_REMEDY = "one name per line, a CSV file with a column 'display_name', or JSON"


def read_label_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the names of classes, in the order of a classifier's outputs.

    Parameters
    ----------
    path
        A text file with one name per line; a CSV file such as the ``labels.csv`` of a
        recipe or AudioSet's ``class_labels_indices.csv``, whose display names are read;
        or a JSON file with a list of names, a list of objects with a ``name``, or an
        object with names by index, such as Hugging Face's ``id2label``.

    Raises
    ------
    ManifestError
        If the file cannot be read, contains no names, or has an index that is missing.
    """
    path = Path(path)
    lines = [text for _, text in read_lines(path)]
    if path.suffix == ".json":
        names = _names_of_json("\n".join(lines), path)
    else:
        names = _names_of_lines(lines, path)
    if not names or not all(names):
        what = "an empty name" if names else "no names"
        raise ManifestError(f"{path}: {what} (expected {_REMEDY})")
    return names


def labels_json(names: Sequence[str], ids: Sequence[str] | None = None) -> str:
    """Return the content of a model folder's ``labels.json``: index, id and name."""
    rows = [
        {"index": index, "id": label, "name": name}
        for index, (label, name) in enumerate(zip(ids or names, names, strict=True))
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


@cache
def audioset_by_id() -> dict[str, str]:
    """Return the display names of AudioSet's classes by their id, ``/m/09x0r`` say."""
    lines = AUDIOSET.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["mid"]: row["display_name"] for row in rows}


@cache
def audioset_names() -> tuple[str, ...]:
    """Return the display names of AudioSet's 527 classes, in the official order."""
    return read_label_names(AUDIOSET)


def _names_of_lines(lines: Sequence[str], path: Path) -> tuple[str, ...]:
    lines = list(dropwhile(lambda line: line.startswith("#"), lines))
    rows = list(csv.reader(lines, skipinitialspace=True))
    header = [clean(cell).lower() for cell in rows[0]] if rows else []
    column = next((name for name in NAME_COLUMNS if name in header), None)
    if column is not None and (len(header) > 1 or path.suffix == ".csv"):
        fields = [dict(zip(header, row, strict=False)) for row in rows[1:]]
        index = [row.get("index", str(i)) for i, row in enumerate(fields)]
        names = [row.get(column, "") for row in fields]
        return _in_order(dict(zip(index, names, strict=True)), len(names), path)
    if rows and all(len(row) == 3 and row[0].isdigit() for row in rows):
        # A list without a header, as the official code has it.
        return _in_order({row[0]: row[2] for row in rows}, len(rows), path)
    return tuple(map(clean, lines))


def _names_of_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON ({error}; check the file)") from error
    if isinstance(value, dict):
        return _in_order(value, len(value), path)
    if isinstance(value, list):
        value = [x.get("name") if isinstance(x, dict) else x for x in value]
        if all(isinstance(name, str) for name in value):
            return tuple(map(clean, value))
    raise ManifestError(f"{path}: no list of names (expected {_REMEDY})")


def _in_order(by_index: dict[str, Any], number: int, path: Path) -> tuple[str, ...]:
    """Return the names by their index, which must be 0 to `number` - 1."""
    missing = [i for i in range(number) if not isinstance(by_index.get(str(i)), str)]
    if missing:
        raise ManifestError(
            f"{path}: index {missing[0]} has no name (number the classes from 0, each "
            "once)"
        )
    return tuple(clean(by_index[str(i)]) for i in range(number))
