"""One process at a time in a folder; no lock outlives its process."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eat.errors import ExperimentError, LockError
from eat.utils.lock import lock_folder

ROOT = Path(__file__).parents[3]
HOLD = """
import os, sys, time
from pathlib import Path
from eat.utils.lock import lock_folder
held = lock_folder(Path(sys.argv[1]))
if os.fork() == 0:  # as a data worker does
    time.sleep(30)
    os._exit(0)
print("held", flush=True)
time.sleep(30)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder, with a child of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_second_process_is_refused_and_names_the_first(tmp_path, holder):
    with pytest.raises(LockError, match=rf"\b{holder.pid}\b.*--output_folder"):
        lock_folder(tmp_path)


def test_lock_ends_with_its_process_even_if_a_child_lives(tmp_path, holder):
    holder.kill()
    holder.wait()
    lock_folder(tmp_path).close()


def test_folder_is_free_again_when_closed(tmp_path):
    lock_folder(tmp_path).close()
    assert lock_folder(tmp_path).readable()


def test_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    lock_folder(tmp_path).close()
    [message] = caplog.messages
    assert message.startswith(str(tmp_path)) and "Function not implemented" in message


def test_link_in_place_of_the_lock_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    (tmp_path / ".lock").symlink_to(precious)
    with pytest.raises(ExperimentError, match=str(tmp_path / ".lock")):
        lock_folder(tmp_path)
    assert precious.read_text() == "keep this"


def test_lock_of_another_user_is_refused(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("eat.utils.lock.open_append", refuse)
    with pytest.raises(LockError, match=rf"{tmp_path}.*--output_folder"):
        lock_folder(tmp_path)
