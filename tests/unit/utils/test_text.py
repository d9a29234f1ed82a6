"""Text files are read as any program saves them, and nothing else passes for text."""

import unicodedata

import pytest

from eat.errors import ManifestError
from eat.utils.text import clean, read_lines

LINES = ["bed/a.wav", "Straße/é.wav", "日本/c.wav"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\n"])
def test_encodings_and_line_breaks(tmp_path, encoding, end):
    path = tmp_path / "list.txt"
    for last in ("", end):
        path.write_bytes((end.join(LINES) + last).encode(encoding))
        assert [line.text for line in read_lines(path)] == LINES


def test_line_breaks_of_all_kinds_in_one_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a\r\nb\rc\n\n \xc2\xa0\nd\xe2\x80\xa8e\x0cf")
    assert read_lines(path) == [
        *[(1, "a"), (2, "b"), (3, "c")],
        (6, "d\u2028e\x0cf"),  # no line breaks of a list
    ]


def test_joined_files_have_a_mark_in_the_middle(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(2 * "a\nb\n".encode("utf-8-sig"))
    assert [line.text for line in read_lines(path)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a\r\nb\rcafé".encode("latin-1"), "line 3: byte 0xe9 "),
        ("a\nb €".encode("cp1252"), "line 2: byte 0x80 "),
        ("a\nb".encode("utf-16-le"), "line 1: "),
        ("a\nb".encode("utf-16")[:-1], "line 2: "),
        (b"a\nb\0c", "line 2: "),
        (b"PK\x03\x04\x14\x00", "Excel"),
        (b"\xd0\xcf\x11\xe0", "Excel"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_is_not_utf8_is_named(tmp_path, content, found):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=f"^{path}: .*{found}"):
        read_lines(path)


def test_what_cannot_be_opened_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent.txt", tmp_path / "a" / "b"):
        with pytest.raises(ManifestError, match=f"^{path}: "):
            read_lines(path)


def test_clean_is_nfc_without_blanks_at_the_ends():
    decomposed = unicodedata.normalize("NFD", "é")
    assert clean(f"\ufeff\u00a0 d{decomposed}\u200b\t\u3000") == "dé"
    assert clean(" a b ") == "a b"
    assert clean("\u200b") == ""
