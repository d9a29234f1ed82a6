"""The reader of all tables that people bring: CSV and its relatives.

Tables come from spreadsheets, from Windows and macOS, and from scripts. What can only
be meant in one way is read: everything that `eat.utils.text` reads, commas, semicolons
or tabs between the fields, quoted fields, spaces around fields, empty lines, columns in
any order. All else is refused with its line; no line is dropped or joined to another.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from eat.errors import ManifestError
from eat.utils.text import BLANK, clean, text_lines

DELIMITERS = ",;\t"
SPREADSHEET_ERRORS = frozenset("#NAME? #REF! #VALUE! #N/A #DIV/0! #NUM!".split())


class Row(NamedTuple):
    """A row of a table: the line it starts at, and its values by column."""

    line: int
    values: dict[str, str]


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    header: Literal["required", "optional"] = "required",
    aliases: Mapping[str, str] | None = None,
    exact: Sequence[str] = (),
    comment: str | None = None,
    remedy: str = "save it as CSV UTF-8",
) -> Iterator[Row]:
    """Read the rows of a table, one by one, in which any field is not blank.

    Parameters
    ----------
    columns
        Columns that the table must have. Further ones are ignored. Names are compared
        without regard to case.
    optional
        Columns that the header may have; rows that end before them have '' there.
    header
        Whether the first line must be the header. A table without one has exactly
        `columns`, in this order.
    aliases
        Columns by other names of theirs.
    exact
        Columns with paths or ids, which are kept as they are; the values of others are
        in normal form, see `clean`.
    comment
        What comments begin with, which are skipped.
    remedy
        How to fix a table with wrong columns.

    Raises
    ------
    ManifestError
        If the file cannot be read or is not text, a column is missing or occurs twice,
        or a row has too few or too many fields, an unbalanced quote, or an error value
        of a spreadsheet. Names the line.
    """
    path = Path(path)
    names = _Names((*columns,), (*optional,), {**(aliases or {})}, remedy)
    lines, delimiter = _find_delimiter(text_lines(path), names.fit, comment)
    records = _records(path, lines, delimiter, comment)
    line, first = next(records, (1, []))
    if header == "optional" and names.known(first) < min(2, len(columns)):
        if not first:
            return
        positions = {name: i for i, name in enumerate(columns)}
        records, first = chain([(line, first)], records), list(columns)
    else:
        positions = names.find(first, f"{path}: line {line}")
    rows = (row for row in records if row[1] != first)  # else lists were joined
    needed = 1 + max(positions[name] for name in columns)
    for line, fields in rows:
        if len(fields) != len(first):
            fields = _fit(fields, needed, len(first), f"{path}: line {line}", remedy)
        values = {name: fields[i] for name, i in positions.items()}
        yield Row(line, _clean_values(values, exact, path, line))


def read_fields(
    path: str | os.PathLike[str], score: Callable[[list[str]], int]
) -> Iterator[tuple[int, list[str]]]:
    """Read a table whose columns are not known: yield the line and fields of each row.

    `score` tells how well fields fit the first row; the best separator is taken. Rows
    in which all fields are blank are skipped, and fields are as written. Raises
    `ManifestError` if the file cannot be read or is not text, or a quote is unbalanced.
    """
    path = Path(path)
    lines, delimiter = _find_delimiter(text_lines(path), score)
    yield from _records(path, lines, delimiter, None)


def _clean_values(
    values: dict[str, str], exact: Sequence[str], path: Path, line: int
) -> dict[str, str]:
    """Return the values in normal form, but for those to be kept exactly."""
    if not SPREADSHEET_ERRORS.isdisjoint(values.values()):
        raise ManifestError(
            f"{path}: line {line} has an error of a spreadsheet, "
            f"{' '.join(SPREADSHEET_ERRORS.intersection(values.values()))} (import "
            "its column as text)"
        )
    return {
        name: value if name in exact else clean(value) for name, value in values.items()
    }


def _fit(
    fields: list[str], needed: int, width: int, where: str, remedy: str
) -> list[str]:
    """Return the fields of a row, one per column of the header.

    Spreadsheets omit empty fields at the end of a row, or add some.
    """
    if not needed <= len(fields) <= width and any(map(clean, fields[width:] or "-")):
        if len(fields) > width:
            remedy = "quote values that contain the separator"
        raise ManifestError(f"{where}: {len(fields)} fields, not {width} ({remedy})")
    return [*fields[:width], *[""] * (width - len(fields))]


class _Names(NamedTuple):
    """The columns of a table."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    aliases: dict[str, str]
    remedy: str

    def _canonical(self, field: str) -> str:
        """Return the column that a field of the header names, empty if none."""
        name = clean(field.lstrip("# ")).casefold()
        spellings = {name.casefold(): name for name in self.columns + self.optional}
        spellings |= {other.casefold(): name for other, name in self.aliases.items()}
        return spellings.get(name, "")

    def known(self, fields: Iterable[str]) -> int:
        """Return how many columns a header names."""
        return len(set(filter(None, map(self._canonical, fields))))

    def fit(self, fields: list[str]) -> tuple[int, bool]:
        """Return how well the fields of a first row fit: names, else their number."""
        while fields and not clean(fields[-1]):
            fields = fields[:-1]
        return self.known(fields), len(fields) == len(self.columns)

    def find(self, header: Sequence[str], where: str) -> dict[str, int]:
        """Return the position of each column that is in the header."""
        found = [self._canonical(field) for field in header]
        for name in (*self.columns, *self.optional):
            if found.count(name) > 1:
                raise ManifestError(
                    f"{where}: column '{name}' occurs twice (remove or rename one)"
                )
        if missing := [name for name in self.columns if name not in found]:
            there = [clean(field) for field in header]
            near = difflib.get_close_matches(missing[0], there, 1)
            hint = f"rename {near[0]!r}" if near else self.remedy
            raise ManifestError(
                f"{where}: needs the columns {','.join(self.columns)}, but "
                f"'{missing[0]}' is not in its header, {','.join(there)!r} ({hint})"
            )
        names = (*self.columns, *self.optional)
        return {name: found.index(name) for name in names if name in found}


def _is_comment(text: str, comment: str | None) -> bool:
    """Return whether a line or its first field begins a comment.

    A spreadsheet turns ids such as ``-x`` into ``#NAME?``, which is none.
    """
    text = text.lstrip(' "')
    if not comment or not text.startswith(comment):
        return False
    return not text.startswith(tuple(SPREADSHEET_ERRORS))


def _find_delimiter(
    lines: Iterator[str],
    score: Callable[[list[str]], tuple[int, bool] | int],
    comment: str | None = None,
) -> tuple[Iterator[str], str]:
    """Return all lines, and the character between the fields of the first row.

    It is the one whose fields have the highest score.
    """
    seen: list[str] = []
    line = ""
    for line in lines:
        if setting := re.fullmatch(r'"?sep=([,;\t|])"?[,;\t]*\s*', line):  # for Excel
            return chain(seen, ["\n"], lines), setting[1]
        seen.append(line)
        if line.strip(BLANK) and not _is_comment(line, comment):
            break

    def fit(delimiter: str) -> tuple[int, bool] | int:
        """Return the score of the line's fields, with this delimiter between them."""
        rows = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        try:
            fields = next(rows, [])
        except csv.Error:
            fields = []
        return score(fields)

    return chain(seen, lines), max(DELIMITERS, key=fit)


def _records(
    path: Path, lines: Iterator[str], delimiter: str, comment: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row that is not blank, and the line it starts at."""
    last = ""

    def watched() -> Iterator[str]:
        """Yield the lines without comments, and keep the last one for errors."""
        nonlocal last
        for last in lines:
            yield "\n" if comment and _is_comment(last, comment) else last

    # Strict: a quote that is never closed must not swallow the rest of the file.
    reader = csv.reader(
        watched(), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    line = 1
    while True:
        try:
            for fields in reader:
                if any(map(clean, fields)):
                    yield line, fields
                line = reader.line_num + 1
            return
        except csv.Error as error:
            fields = _spaced_fields(last, delimiter) if reader.line_num == line else []
            if not fields:
                raise ManifestError(
                    f"{path}: line {line}: {error} (check its quotes: a value with "
                    'quotes in it is written "like ""this""")'
                ) from None
            yield line, fields
            line = reader.line_num + 1


def _spaced_fields(line: str, delimiter: str) -> list[str]:
    """Return the fields of a line with spaces after closing quotes, [] if malformed."""
    field = rf' *+(?:"(?:[^"]|"")*+" *+|[^"{delimiter}][^{delimiter}]*+|)'
    if not re.fullmatch(rf"{field}(?:\{delimiter}{field})*+", line.rstrip("\r\n")):
        return []
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:  # a field is too long
        return []
