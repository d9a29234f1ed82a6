"""Expected errors end a program with one line and an exit status."""

import errno
import os
import signal

import pytest
from torch._utils import ExceptionWrapper

from eat.errors import AudioError, EATError, Interrupted, exit_on_error


def exit_code(error):
    """Return what the program exits with: a status, or the line to print."""
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise error
    return caught.value.code


def test_expected_errors_become_one_line():
    assert exit_code(EATError("clip.wav: unreadable")) == "error: clip.wav: unreadable"


def test_errors_of_data_workers_become_one_line():
    try:
        raise AudioError("clip.wav: unreadable")
    except AudioError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(AudioError) as caught:
        wrapped.reraise()
    assert "Traceback" in str(caught.value)
    assert exit_code(caught.value) == "error: clip.wav: unreadable"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_becomes_one_line(code):
    line = exit_code(OSError(code, os.strerror(code), "run/save"))
    assert line.startswith("error: run/save: ") and "\n" not in line


def test_interrupted_run_exits_with_the_signal(capsys, monkeypatch):
    stop = Interrupted("stopped", signal.SIGTERM)
    assert exit_code(stop) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped\n"
    monkeypatch.setenv("RANK", "1")
    assert exit_code(stop) == 128 + signal.SIGTERM and not capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EIO, "broken")])
def test_unexpected_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), exit_on_error():
        raise error
