"""A user's table of labels, and how it joins several labels."""

from __future__ import annotations

import ast
import logging
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from own_data_columns import Locate, is_yes, read_columns, telling, value_of
from own_data_recordings import UNUSABLE

from eat.data.tables import read_fields
from eat.errors import ManifestError
from eat.utils.text import clean

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A row of a table: the text that names a recording, its labels and its split."""

    line: int
    file: str
    labels: tuple[str, ...]
    split: str = ""
    fold: str = ""


def _parse_list(field: str) -> tuple[str, ...] | None:
    """Return the labels of a list as Python or JSON writes it, else None."""
    if not re.match(r"\s*[\[({]", field):
        return None
    try:
        value = ast.literal_eval(field.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, list | tuple | set):
        return None
    if not all(isinstance(label, str | int) for label in value):
        return None
    return tuple(dict.fromkeys(filter(None, (clean(str(label)) for label in value))))


def _split_labels(path: Path, fields: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each distinct field.

    They are separated by ``;`` or else ``|`` if any field has that, or else by commas.
    A comma within the name of a class has a space after it: such a comma separates only
    if most of what it separates occurs in other fields too.
    """
    distinct = {field: None for field in fields if field.strip()}
    found = {f: x for f in distinct if (x := _parse_list(f)) is not None}
    if found or all(re.fullmatch(r"\s*[\[({].*[\])}]\s*", f) for f in distinct):
        if bad := next((field for field in distinct if field not in found), None):
            raise ManifestError(
                f"{path}: labels {bad!r}: no list of texts, such as ['dog', 'cat'] "
                "(write them as dog;cat)"
            )
        return found
    separator = next((s for s in ";|" if any(s in field for field in distinct)), ",")
    pattern = re.compile(f"[{separator}]")
    if separator == "," and any("," in field for field in distinct):
        pieces = [set(map(clean, field.split(","))) for field in distinct]
        uses = Counter(chain.from_iterable(pieces))
        of_several = set().union(*(p for p in pieces if len(p) > 1))
        shared = sum(uses[piece] > 1 for piece in of_several)
        if 2 * shared < len(of_several):
            pattern = re.compile(r",(?!\s)")
            if spaced := next((f for f in distinct if re.search(r",\s", f)), None):
                line = "%s: '%s' is one class (separate several by ;)"
                logger.warning(line, path, spaced)
    if any(pattern.search(field) for field in distinct):
        logger.info("%s: labels are separated by '%s'", path, separator)
    return {
        field: tuple(dict.fromkeys(filter(None, map(clean, pattern.split(field)))))
        for field in distinct
    }


def _parse_fold(text: str) -> str:
    """Return the number of a fold as text; it may be written as fold1, 01 or 1.0."""
    return re.sub(r"^(?:fold)?[\s_-]*0*(\d+)(?:\.0+)?$", r"\1", text.casefold())


def _check(path: Path, entry: Entry) -> Entry:
    """Return a row that can be used; raise if it cannot."""
    fault = None
    if not entry.file:
        fault = "file '' is empty (name a recording)"
    elif bad := next((x for x in entry.labels if UNUSABLE.search(x) or ";" in x), None):
        fault = f"label {bad!r} (rename it, without $, ; and line breaks)"
    elif entry.fold and not re.fullmatch(r"\d{1,3}", entry.fold):
        fault = f"fold {entry.fold!r} (number the folds: 1, 2, 3)"
    if fault:
        raise ManifestError(f"{path}: line {entry.line}: {fault}")
    return entry


def read_label_table(path: Path, locate: Locate) -> list[Entry]:
    """Read a table with a row per recording, or per recording and label.

    Parameters
    ----------
    path
        CSV or TSV, with or without header. Labels are in one column, or there is a
        column of 0 and 1 for each class.
    locate
        Returns the path of the recording that a text names, or None.

    Raises
    ------
    ManifestError
        If it is malformed, its columns are not recognized, or it has no label.
    """
    rows = list(read_fields(path, telling))
    if not rows:
        raise ManifestError(f"{path}: empty (write the columns file and labels)")
    rows, columns, classes = read_columns(path, rows, locate)
    fields = _split_labels(path, (value_of(row, columns, "labels") for _, row in rows))
    entries = []
    for line, row in rows:
        labels = fields.get(value_of(row, columns, "labels"), ())
        if classes:
            marked = (i for i in classes if i < len(row) and is_yes(row[i]))
            labels = tuple(classes[i] for i in marked)
        split, fold = (value_of(row, columns, name) for name in ("split", "fold"))
        file = value_of(row, columns, "file")
        entries.append(
            _check(path, Entry(line, file, labels, split, _parse_fold(fold)))
        )
    if not any(entry.labels for entry in entries):
        raise ManifestError(f"{path}: no labels (fill them in, or give --labels none)")
    return entries
