"""Files are replaced as a whole or not at all."""

import json

import pytest

from eat.utils.files import (
    atomic_open,
    atomic_path,
    sha256_file,
    write_json,
    write_text,
)


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "file"
    with atomic_path(path, sync=True) as temporary:
        temporary.write_bytes(b"abc")
        assert not path.exists() and temporary.parent == tmp_path
    assert path.read_bytes() == b"abc" and list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_former_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "former")
    with pytest.raises(ZeroDivisionError), atomic_open(path) as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "former" and list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_keeps_its_newlines(tmp_path):
    write_text(tmp_path / "file", "é\r\n\udce9\n")  # the last is no valid UTF-8
    assert (tmp_path / "file").read_bytes() == "é\r\n\\udce9\n".encode()


def test_json(tmp_path):
    write_json(tmp_path / "file", {"a": [1, None]})
    assert json.loads((tmp_path / "file").read_text()) == {"a": [1, None]}


def test_checksum(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # NIST's example for SHA-256.
    assert sha256_file(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")
