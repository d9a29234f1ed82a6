"""Which columns a user's table has, with or without a header."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from own_data_recordings import is_audio
from own_data_splits import parse_split

from eat.audio.io import inspect_audio
from eat.data.prepare import abbreviate
from eat.errors import AudioError, ManifestError
from eat.utils.text import clean

logger = logging.getLogger(__name__)

Rows = list[tuple[int, list[str]]]  # the line and the fields of each
Locate = Callable[[str], Path | None]  # the recording that a text names

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
    "start": "start starttime startseconds startsecond startsec starts onset begin "
    "begintime begintimes tmin",
    "end": "end endtime endseconds endsecond endsec ends offset endtimes tmax",
}
_ALL_NAMES = set(" ".join(NAMES.values()).split())
_YES, _NO = {"1", "1.0", "true", "yes", "x"}, {"", "0", "0.0", "false", "no"}
_EVENTS = {"onset", "offset"}  # of what is heard in a recording
_TRIED = 200  # files whose duration is compared with the times of a table


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def telling(fields: Sequence[str]) -> int:
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


def value_of(row: Sequence[str], columns: Mapping[str, int], name: str) -> str:
    """Return the value of a column, empty if there is none."""
    position = columns.get(name, len(row))
    return row[position].strip() if position < len(row) else ""


def is_yes(field: str) -> bool:
    """Return whether a field says that a class occurs."""
    return field.strip().casefold() in _YES


def _one_hot(
    header: Sequence[str], columns: Mapping[str, int], rows: list[list[str]]
) -> dict[int, str]:
    """Return the classes: columns with 0 and 1 only, if there are several."""
    others = [i for i in range(len(header)) if i not in columns.values()]

    def is_binary(i: int) -> bool:
        values = {row[i].strip().casefold() for row in rows if i < len(row)}
        return values <= _YES | _NO and not values.isdisjoint(_YES)

    found = {i: clean(header[i]) for i in others if clean(header[i]) and is_binary(i)}
    return found if len(found) > 1 else {}


def _without_header(path: Path, rows: Rows, locate: Locate) -> dict[str, int]:
    """Return the columns of a table without header, in any order.

    They are a recording and its labels; if there are more, a split or times as well.
    """
    first = rows[0][1]
    files = [i for i, field in enumerate(first) if locate(field)]
    others = [i for i in range(len(first)) if i not in files]
    columns = {}
    if len(first) > 2:
        for i in tuple(others):
            values = {row[i].strip() for _, row in rows if i < len(row)}
            if all(re.fullmatch(r"\d+(\.\d+)?", value) for value in values):
                name = "end" if "start" in columns else "start"
            elif len(values) > 1 and all(parse_split(v, values) for v in values):
                name = "split"
            else:
                continue
            if name not in columns:
                columns[name] = i
                others.remove(i)
    if len(files) == len(others) == 1:
        return {"file": files[0], "labels": others[0], **columns}
    shown = abbreviate((repr(field) for field in first), shown=8)
    raise ManifestError(
        f"{path}: its first line is {shown} (write a header with the columns file and "
        "labels, separated by commas; optional: split, fold)"
    )


def _compare(start: str, end: str, path: Path | None) -> str:
    """Return if times are ``beyond`` the end of a file, its ``whole`` or a ``part``."""
    try:
        seconds = inspect_audio(path).seconds if path else None
    except AudioError:
        seconds = None
    if seconds is None:
        return "unknown"
    try:
        first, last = float(start or 0), float(end or seconds)
    except ValueError:  # such as 1:30
        return "part"
    if max(first, last) > 0.1 + 1.05 * seconds:  # they may be rounded
        return "beyond"
    return "whole" if first < 0.01 * seconds and last > 0.99 * seconds else "part"


def _require_whole_files(
    path: Path,
    header: Sequence[str],
    columns: Mapping[str, int],
    rows: Rows,
    locate: Locate,
) -> None:
    """Raise if a table gives parts of recordings: whole files are used.

    Files that the times do not fit into are cut already, such as those of UrbanSound8K:
    the times are of where they come from.
    """
    timed: dict[tuple[str, str, str], int] = {}
    for line, row in rows:
        start, end = (value_of(row, columns, name) for name in ("start", "end"))
        if start or end:
            timed.setdefault((value_of(row, columns, "file"), start, end), line)
    if not timed:
        return
    used = [columns[name] for name in ("start", "end") if name in columns]
    shown = " and ".join(f"'{header[i] or i + 1}'" for i in used)
    times = Counter({"part": 1})
    several = len({file for file, *_ in timed}) < len(timed)
    if not several and _EVENTS.isdisjoint(_plain(header[i]) for i in used):
        tried = islice(timed, _TRIED)
        times = Counter(_compare(start, end, locate(f)) for f, start, end in tried)
    if times["part"] and times["part"] >= times["beyond"]:
        raise ManifestError(
            f"{path}: line {min(timed.values())}: times ({shown}): parts of recordings "
            "are not supported (cut them into files, or remove the times if each file "
            "is meant in full)"
        )
    message = "%s: times (%s) are not used: they are not of parts of the recordings"
    logger.info(message, path, shown)


def read_columns(
    path: Path, rows: Rows, locate: Locate
) -> tuple[Rows, dict[str, int], dict[int, str]]:
    """Return the rows without header, the columns, and those of 0 and 1 by class.

    Raises `ManifestError` if they are not recognized, or times are of parts of files.
    """
    while len(rows) > 1 and rows[0][1][0][:1] == "#" and not telling(rows[0][1]):
        rows = rows[1:]  # a comment, as in AudioSet's lists
    header = rows[0][1]
    columns, classes = _find_columns(path, header), dict[int, str]()
    if any(map(is_audio, header)) or not columns:
        columns = _without_header(path, rows, locate)
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
    for line, row in rows:
        if len(row) > len(header):
            raise ManifestError(
                f"{path}: line {line}: {len(row)} fields, {len(header)} in the first "
                "line (quote values that contain the separator)"
            )
    _require_whole_files(path, header, columns, rows, locate)
    _describe(path, header, columns, classes)
    return rows, columns, classes


def _describe(
    path: Path,
    header: Sequence[str],
    columns: Mapping[str, int],
    classes: Mapping[int, str],
) -> None:
    """Log which columns are used; a surprise is found before the training."""
    used = [
        f"{header[i] or i + 1} ({name})"
        for name, i in columns.items()
        if name not in ("start", "end")
    ]
    used += [f"{len(classes)} classes of 0 and 1"] * bool(classes)
    taken = {*columns.values(), *classes}
    others = [name or i + 1 for i, name in enumerate(header) if i not in taken]
    rest = f"; not used: {abbreviate(others)}" if others else ""
    logger.info("%s: columns %s%s", path, ", ".join(used), rest)
