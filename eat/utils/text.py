"""Text files as people bring them, and the normal form of labels and names.

Spreadsheets, Windows and macOS write UTF-8 with a byte-order mark or UTF-16, and line
breaks of their own; all are read. Other encodings cannot be told apart, and are refused
with the first line that shows it.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eat.errors import ManifestError

# Invisible characters that copying from web pages and chats leaves around a text.
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
# All kinds of spaces, and invisible characters.
BLANK = _INVISIBLE + "".join(filter(str.isspace, map(chr, range(0x3001))))
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive (save the table as CSV UTF-8)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (save the table as CSV UTF-8)",
    b"\x1f\x8b": "compressed (unpack it with gunzip)",
    b"version https://git-lfs": "a Git LFS pointer (fetch the file with git lfs pull)",
    b"<!doctype": "a web page (download the file itself)",
    b"<html": "a web page (download the file itself)",
}
_AS_UTF8 = "save it as CSV UTF-8"


class Line(NamedTuple):
    """A line of a plain list, without blanks at its ends; numbers start at 1."""

    number: int
    text: str


def clean(text: str) -> str:
    """Return a label or name in normal form: NFC, without blanks at its ends.

    Blanks are all kinds of spaces, and zero-width characters.
    """
    text = text.strip()
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.strip(BLANK))


def text_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the lines of a text file with their line breaks: LF, CR LF or CR.

    Raises `ManifestError` if it cannot be read or is not text.
    """
    path = Path(path)
    encoding = "utf-8"
    try:
        with open(path, "rb") as file:
            start = file.read(64)
        for magic, what in _OTHER_FORMATS.items():
            if start.lower().startswith(magic.lower()):
                raise ManifestError(f"{path}: {what}")
        marks = (mark for mark in _ENCODINGS if start.startswith(mark))
        encoding = _ENCODINGS.get(next(marks, b""), encoding)
        with open(path, encoding=encoding, newline="") as text:
            for number, line in enumerate(text, 1):
                if "\0" in line:
                    raise ManifestError(
                        f"{path}: line {number}: zero bytes, so it is damaged, or "
                        f"UTF-16 without a byte-order mark ({_AS_UTF8})"
                    )
                # Joined files have a byte-order mark in the middle.
                yield line.lstrip("\ufeff") if line[:1] == "\ufeff" else line
    except UnicodeError:
        raise ManifestError(f"{path}: {_bad_bytes(path, encoding)}") from None
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read: {error.strerror} (check the path and permissions)"
        ) from None


def read_lines(path: str | os.PathLike[str]) -> list[Line]:
    """Read the lines of a text file that are not blank.

    Raises `ManifestError` if it cannot be read or is not text.
    """
    texts = (line.strip(BLANK) for line in text_lines(path))
    return [Line(number, text) for number, text in enumerate(texts, 1) if text]


def _bad_bytes(path: Path, encoding: str) -> str:
    """Return where a file cannot be decoded."""
    content, name = path.read_bytes(), encoding.removesuffix("-sig").upper()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, "replace")
        line = len(re.findall(r"\r\n?|\n", before)) + 1
        bad = content[error.start : error.start + 1].hex()
        return f"line {line}: byte 0x{bad} is not {name} ({_AS_UTF8})"
    return f"not {name} ({_AS_UTF8})"
