"""Files are replaced as a whole or not at all."""

import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from eat.errors import ExperimentError, printable
from eat.utils.files import (
    atomic_open,
    atomic_path,
    keep_copy,
    new_path,
    open_append,
    remove_temporaries,
    sha256_file,
    sync_to_disk,
    write_json,
    write_text,
)


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "file"
    with atomic_path(path, sync=True) as temporary:
        temporary.write_bytes(b"abc")
        assert not path.exists() and temporary.parent == tmp_path
    assert path.read_bytes() == b"abc" and list(tmp_path.iterdir()) == [path]


def test_new_path_appears_when_complete(tmp_path):
    path = tmp_path / "a" / ("n" * 255)
    with new_path(path) as new:
        new.mkdir()
        assert not path.exists()
    assert path.is_dir() and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "file", "file/x", "nul\0l", "n" * 256, "\ud800"])
def test_new_path_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExperimentError) as caught, new_path(f"{tmp_path}/{name}"):
        pass
    assert printable(str(tmp_path / name)) in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_new_path_of_two_processes(tmp_path):
    with (
        pytest.raises(ExperimentError, match="exists"),
        new_path(tmp_path / "x") as new,
    ):
        new.write_text("second")
        (tmp_path / "x").write_text("first")
    assert (tmp_path / "x").read_text() == "first"


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


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_the_umask(tmp_path, umask):
    """Even if a library makes its file private, as safetensors does."""
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode for name in ("file", "plain")]
    assert modes[0] == modes[1] and stat.S_IMODE(modes[0]) == 0o666 & ~umask


def test_link_is_replaced_not_followed(tmp_path):
    """Neither at the path nor at the name of the temporary file."""
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    path = tmp_path / "file"
    path.symlink_to(precious)
    suffix = f"{socket.gethostname()}-{os.getpid()}.tmp"
    (tmp_path / f".file.{suffix}").symlink_to(precious)
    write_text(path, "new")
    assert precious.read_text() == "keep this"
    assert path.read_text() == "new" and not path.is_symlink()


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    """Not those of living ones, of other machines, nor what looks alike."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    killed = tmp_path / f".model.safetensors.{host}-{dead.pid}.tmp"
    others = [
        tmp_path / f".model.safetensors.{host}-{os.getppid()}.tmp",
        tmp_path / f".model.safetensors.else{host}-{dead.pid}.tmp",
        tmp_path / f"model.{host}-{dead.pid}.tmp",
        tmp_path / ".mine.tmp",
    ]
    for path in (killed, *others):
        path.touch()
    remove_temporaries(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)
    remove_temporaries(tmp_path / "absent")


def test_append_adds_to_what_is_there(tmp_path):
    for text in (b"one", b"two"):
        with open_append(tmp_path / "file") as file:
            file.seek(0)
            file.write(text)
    assert (tmp_path / "file").read_bytes() == b"onetwo"


def test_append_refuses_links_pipes_devices_and_folders(tmp_path):
    (tmp_path / "precious").touch()
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "device").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "dangling", "device", "pipe", "folder"):
        with pytest.raises(ExperimentError, match=str(tmp_path / name)):
            open_append(tmp_path / name)
    assert not (tmp_path / "absent").exists()


def test_copies_do_not_replace_each_other(tmp_path):
    path = tmp_path / "log"
    (tmp_path / "log.1").symlink_to(tmp_path / "absent")
    for text in ("a", "b"):
        path.write_text(text)
        assert keep_copy(path).read_text() == text
    assert {x.name for x in tmp_path.iterdir()} == {"log", "log.1", "log.2", "log.3"}


def test_windows_cannot_flush_folders(tmp_path, monkeypatch):
    sync_to_disk(tmp_path)
    monkeypatch.setattr("eat.utils.files.os.open", None)
    monkeypatch.setattr("eat.utils.files.os.name", "nt")
    sync_to_disk(tmp_path)
