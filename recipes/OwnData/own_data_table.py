"""A user's table of labels: which columns it has, how it joins labels."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from own_data_recordings import UNUSABLE, is_audio

from eat.data.prepare import abbreviate
from eat.data.tables import read_fields
from eat.errors import ManifestError
from eat.utils.text import clean

logger = logging.getLogger(__name__)

# What columns are called, the most telling name first; without case, spaces, - and _.
NAMES = {
    "file": "file filename filepath path wav wavfile wavfilename wavpath audio "
    "audiofile audiofilename audiopath audiofilepath fname slicefilename sound "
    "soundfile recording track trackid clip clipname clipid uri url fileid ytid "
    "youtubeid id name",
    "labels": "labels label classes class category categories classname classlabel "
    "labelname tags tag annotation annotations primarylabel soundclass keyword word "
    "species emotion genre scene scenelabel eventlabel eventlabels event events target "
    "targets positivelabels y classid labelid targetid classindex classidx",
    "split": "split subset set partition splits datasplit",
    "fold": "fold folds foldid kfold cvfold foldnumber",
    "start": "start starttime startseconds starts onset begin begintime tmin",
    "end": "end endtime endseconds ends offset endtimes tmax",
}
_ALL_NAMES = set(" ".join(NAMES.values()).split())
_YES, _NO = {"1", "1.0", "true", "yes", "x"}, {"", "0", "0.0", "false", "no"}
_LIST = re.compile(r"""\[\s*(['"].*['"]\s*)?\]""", re.DOTALL)


class Entry(NamedTuple):
    """A row of a table: the text that names a recording, its labels and its split."""

    line: int
    file: str
    labels: tuple[str, ...]
    split: str = ""
    fold: str = ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _telling(fields: Sequence[str]) -> int:
    """Return how many fields of a first line are names of columns, or of files."""
    return sum(_plain(field) in _ALL_NAMES or is_audio(field) for field in fields)


def _find_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Return the position of each column that a header names."""
    names = [_plain(name) for name in header]
    found: dict[str, int] = {}
    for column, known in NAMES.items():
        positions = [names.index(name) for name in known.split() if name in names]
        if positions:
            found[column] = positions[0]
            if names.count(twice := names[positions[0]]) > 1:
                raise ManifestError(
                    f"{path}: column '{twice}' occurs twice (remove or rename one)"
                )
    return found


def _is_yes(field: str) -> bool:
    return field.strip().casefold() in _YES


def _one_hot(
    header: Sequence[str], columns: Mapping[str, int], rows: list[list[str]]
) -> list[int]:
    """Return the positions of the columns with 0 and 1 only, which are the classes."""
    others = [i for i in range(len(header)) if i not in columns.values()]

    def is_binary(i: int) -> bool:
        values = {row[i].strip().casefold() for row in rows if i < len(row)}
        return values <= _YES | _NO and not values.isdisjoint(_YES)

    return [i for i in others if header[i].strip() and is_binary(i)]


def _split_labels(path: Path, fields: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each distinct field.

    They are separated by ``;`` or else ``|`` if any field has that, or else by commas.
    A comma within the name of a class has a space after it: such a comma separates only
    if most of what it separates occurs in other fields too.
    """
    distinct = {field: None for field in fields if field.strip()}
    if lists := next(filter(_LIST.fullmatch, distinct), None):
        raise ManifestError(f"{path}: labels {lists}: a list (write them as dog;cat)")
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


def _without_header(
    path: Path, first: list[str], is_recording: Callable[[str], bool]
) -> dict[str, int]:
    """Return the columns of a table without header: file and labels, in any order."""
    found = [i for i, field in enumerate(first) if is_recording(field)]
    if len(found) == 1 and len(first) == 2:
        return {"file": found[0], "labels": 1 - found[0]}
    shown = abbreviate((repr(field) for field in first), shown=8)
    raise ManifestError(
        f"{path}: its first line is {shown} (write a header with the columns file and "
        "labels; optional: split, fold)"
    )


def _check_segments(path: Path, columns: Mapping[str, int], rows: list) -> None:
    """Raise if a table gives parts of recordings: whole files are used."""
    for name in ("start", "end"):
        if name not in columns:
            continue
        i = columns[name]
        if line := next((n for n, row in rows if i < len(row) and row[i].strip()), 0):
            raise ManifestError(
                f"{path}: line {line}: column '{name}': parts of recordings are not "
                "supported (cut them into files, or remove the column if each file is "
                "meant in full)"
            )


def _parse_fold(text: str) -> str:
    """Return the number of a fold as text; it may be written as fold1, 01 or 1.0."""
    return re.sub(r"^(?:fold)?[\s_-]*0*(\d+)(?:\.0+)?$", r"\1", text.casefold())


def _check(path: Path, entry: Entry) -> Entry:
    """Return a row that can be used; raise if it cannot."""
    fault = None
    if not entry.file:
        fault = "file '' is empty (name a recording)"
    elif bad := next(filter(UNUSABLE.search, entry.labels), None):
        fault = f"label {bad!r} (rename it, without $ and line breaks)"
    elif entry.fold and not re.fullmatch(r"\d{1,3}", entry.fold):
        fault = f"fold {entry.fold!r} (number the folds: 1, 2, 3)"
    if fault:
        raise ManifestError(f"{path}: line {entry.line}: {fault}")
    return entry


def read_label_table(path: Path, is_recording: Callable[[str], bool]) -> list[Entry]:
    """Read a table with a row per recording, or per recording and label.

    Parameters
    ----------
    path
        CSV or TSV, with or without header. Labels are in one column, or there is a
        column of 0 and 1 for each class.
    is_recording
        Whether a text names a recording.

    Raises
    ------
    ManifestError
        If it is malformed, its columns are not recognized, or it has no label.
    """
    rows = list(read_fields(path, _telling))
    if not rows:
        raise ManifestError(f"{path}: empty (write the columns file and labels)")
    header = rows[0][1]
    columns, classes = _find_columns(path, header), list[int]()
    if any(map(is_audio, header)) or not columns:
        columns = _without_header(path, header, is_recording)
        header = ["" for _ in header]
    else:
        rows = rows[1:]
        if "file" in columns and "labels" not in columns:
            classes = _one_hot(header, columns, [row for _, row in rows])
    if "file" not in columns or not ("labels" in columns or classes):
        raise ManifestError(
            f"{path}: its header is {','.join(header)!r} (name the columns file and "
            "labels; or, beside file, one column of 0 and 1 for each class)"
        )
    _check_segments(path, columns, rows)
    for line, row in rows:
        if len(row) > len(header):
            raise ManifestError(
                f"{path}: line {line}: {len(row)} fields, {len(header)} in the first "
                "line (quote values that contain the separator)"
            )
    _describe(path, header, columns, classes)

    def value(row: list[str], column: str) -> str:
        position = columns.get(column, len(row))
        return row[position].strip() if position < len(row) else ""

    fields = _split_labels(path, (value(row, "labels") for _, row in rows))
    entries = []
    for line, row in rows:
        labels = fields.get(value(row, "labels"), ())
        if classes:
            marked = (i for i in classes if i < len(row))
            labels = tuple(clean(header[i]) for i in marked if _is_yes(row[i]))
        split, fold = value(row, "split"), _parse_fold(value(row, "fold"))
        file = value(row, "file")
        entries.append(_check(path, Entry(line, file, labels, split, fold)))
    if not any(entry.labels for entry in entries):
        raise ManifestError(f"{path}: no labels (fill them in, or give --labels none)")
    return entries


def _describe(
    path: Path, header: Sequence[str], columns: Mapping[str, int], classes: list[int]
) -> None:
    """Log which columns are used; a surprise is found before the training."""
    used = [f"{header[i] or i + 1} ({name})" for name, i in columns.items()]
    used += [f"{len(classes)} classes of 0 and 1"] * bool(classes)
    taken = {*columns.values(), *classes}
    others = [name or i + 1 for i, name in enumerate(header) if i not in taken]
    rest = f"; not used: {abbreviate(others)}" if others else ""
    logger.info("%s: columns %s%s", path, ", ".join(used), rest)
