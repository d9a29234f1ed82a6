"""The rows of a manifest, many at a time.

A plain file, as programs write it, is read by Arrow, six times as fast as by the reader
of tables, which reads all others and tells what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from eat.data.manifest import COLUMNS
from eat.data.tables import SPREADSHEET_ERRORS, read_table
from eat.errors import ManifestError

REMEDY = "run the corpus's prepare script again"
BATCH_ROWS = 2**16
BLOCK_BYTES = 2**22
USED = ("ID", "wav", "labels")
# What the reader of tables treats in a special way.
_SPECIAL = re.compile(
    b'["\0]|(?:^|[,\r\n]) |\xef\xbb\xbf|'
    + "|".join(map(re.escape, SPREADSHEET_ERRORS)).encode()
)
Texts = tuple[pa.StringArray, pa.StringArray, pa.StringArray]  # ids, paths, labels


class Unusual(Exception):
    """A manifest is not plain."""


def table_batches(path: Path) -> Iterator[Texts]:
    """Yield ids, paths and joined labels of a manifest of any form.

    Raises `ManifestError` if it cannot be read, lacks a column, or a line is malformed.
    """
    rows = manifest_rows(path)
    while batch := tuple(islice(rows, BATCH_ROWS)):
        ids, wavs, labels = (pa.array(c, pa.string()) for c in zip(*batch, strict=True))
        yield ids, wavs, labels


def manifest_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, path and joined labels of each clip, as `table_batches`."""
    for line, row in read_table(path, COLUMNS, exact=("ID", "wav"), remedy=REMEDY):
        clip, _, wav, labels = row.values()
        if not clip or not wav:
            raise ManifestError(f"{path}: line {line} has no ID or no wav ({REMEDY})")
        yield clip, wav, labels


def plain_batches(path: Path) -> Iterator[Texts]:
    """Yield the same as `table_batches`, of a plain manifest.

    Raises `Unusual` or `ArrowInvalid`, perhaps after some batches, if it is not plain.
    """
    read = pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    parse = pacsv.ParseOptions(quote_char=False)
    types = dict.fromkeys(COLUMNS, pa.string())
    convert = pacsv.ConvertOptions(column_types=types, include_columns=USED)
    try:
        file = open(path, "rb")
    except OSError:
        raise Unusual from None
    with file:
        if file.readline(99).rstrip(b"\r\n") != ",".join(COLUMNS).encode():
            raise Unusual
        file.seek(0)
        source = pa.PythonFile(_PlainFile(file), "r")
        for batch in pacsv.open_csv(source, read, parse, convert):
            ids, wavs, labels = batch.columns
            for text in (pc.equal(ids, "ID"), pc.equal(ids, ""), pc.equal(wavs, "")):
                if pc.any(text).as_py():
                    raise Unusual
            yield ids, wavs, labels


class _PlainFile:
    """A file that raises `Unusual` when something special is read."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.last = b""  # bytes that something may have begun in

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes."""
        block = self.file.read(size)
        text = self.last + block
        if any(byte in text for byte in b'"\0 #\xef') and _SPECIAL.search(text):
            raise Unusual
        self.last = text[-8:]
        return block
