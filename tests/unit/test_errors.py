"""Expected errors end a program with one line and an exit status."""

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper

from eat.errors import (
    AudioError,
    EATError,
    ExperimentError,
    Interrupted,
    exit_on_error,
    printable,
)

SYSTEM_ERRORS = [
    getattr(errno, name)
    for name in "EACCES EPERM ENOENT EISDIR ENOTDIR EROFS ENAMETOOLONG EMFILE EIO "
    "ENOSPC EDQUOT ENOMEM ELOOP EBUSY ESTALE".split()
]


ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


@pytest.fixture(autouse=True)
def restored_records():
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


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


def in_worker(error):
    """Return the error as torch raises it again in the main process."""
    try:
        raise error
    except BaseException:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(Exception) as caught:
        wrapped.reraise()
    return caught.value


@pytest.mark.parametrize("code", SYSTEM_ERRORS, ids=errno.errorcode.get)
def test_errors_of_the_system_become_one_line(code):
    error = OSError(code, os.strerror(code), "run/save")
    line = exit_code(error)
    assert line.startswith("error: run/save: ") and "\n" not in line
    assert os.strerror(code) in line
    for other in (in_worker(error), OSError(code, os.strerror(code))):
        line = exit_code(other)
        assert os.strerror(code) in line and "Traceback" not in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nMore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
        in_worker(MemoryError()),
        in_worker(RuntimeError("CUDA error: out of memory\nCompile with ...")),
    ],
    ids=repr,
)
def test_lack_of_memory_becomes_one_line(error):
    line = exit_code(error)
    assert line.startswith("error: out of memory: ") and "\n" not in line
    assert "Traceback" not in line


def test_allocation_that_is_too_large():
    with pytest.raises(SystemExit) as caught, exit_on_error():
        torch.empty(2**60)
    assert "out of memory" in caught.value.code


HOSTILE = "a\x1b[31m\r\nb\u202egpj\u2028\x9b\x00\udcff\x7f\t.wav"


def is_safe(text):
    return text.isascii() and text.isprintable()


def test_names_cannot_alter_the_terminal_or_forge_lines(caplog):
    assert printable("Müller 犬.wav") == "Müller 犬.wav"
    for kind in (EATError, AudioError, ExperimentError):
        error = kind(f"{HOSTILE}: bad")
        assert is_safe(str(error)) and "gpj" in str(error) and ".wav" in str(error)
        assert exit_code(error) == exit_code(in_worker(error)) == f"error: {error}"
    assert is_safe(exit_code(FileNotFoundError(2, "No such file", HOSTILE)))
    assert is_safe(exit_code(FileNotFoundError(2, "No such file", b"a\xff\n")))
    path = Path(HOSTILE.replace("\0", ""))
    for value in (HOSTILE, path, ValueError(HOSTILE), AudioError(HOSTILE)):
        logging.getLogger("x").warning("%s\n%d of %s", value, 3, [HOSTILE])
        first, second = caplog.messages[-1].split("\n")  # the template's line break
        assert is_safe(first) and is_safe(second) and "gpj" in first


def test_long_messages_are_kept_whole():
    line = exit_code(ExperimentError("x.yaml: line 3\n  - bad\nuse 4"))
    assert all(word in line for word in ("line 3", "- bad", "use 4"))


SCRIPT = """
import os, signal, sys
from eat.errors import EATError, exit_on_error
with exit_on_error():
    {}
"""


def run_script(line, **environment):
    command = [sys.executable, "-c", SCRIPT.format(line)]
    environment = {**os.environ, **environment}
    found = subprocess.run(command, capture_output=True, env=environment)
    assert b"Traceback" not in found.stderr, found.stderr
    return found


def test_output_that_nobody_reads():
    script = SCRIPT.format('print("x" * 10**6)')
    command = f"'{sys.executable}' -c '{script}' | head -c 9"
    found = subprocess.run(command, shell=True, capture_output=True)
    assert len(found.stdout) == 9 and found.stderr == b""


def test_interruption_outside_of_training():
    found = run_script("os.kill(os.getpid(), signal.SIGINT)")
    assert found.returncode == 128 + signal.SIGINT and found.stderr.count(b"\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_terminals_that_lack_characters(encoding):
    line = "print('\\u72ac\\udcff'); raise EATError('\\u72ac\\udcff: bad')"
    found = run_script(line, PYTHONIOENCODING=encoding)
    assert found.returncode == 1 and found.stdout and b": bad" in found.stderr


def test_interrupted_run_exits_with_the_signal(capsys, monkeypatch):
    stop = Interrupted("stopped", signal.SIGTERM)
    assert exit_code(stop) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped\n"
    monkeypatch.setenv("RANK", "1")
    assert exit_code(stop) == 128 + signal.SIGTERM and not capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes differ")])
def test_unexpected_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), exit_on_error():
        raise error


@pytest.mark.parametrize(
    ("redirect", "status"),
    [(">/dev/full", 1), (">&-", 0), ("| true", 128 + signal.SIGPIPE)],
)
@pytest.mark.parametrize("option", ["", "--help"])
def test_output_that_cannot_be_written(option, redirect, status, tmp_path):
    if redirect == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    script = tmp_path / "script.py"
    script.write_text(
        "import argparse, time\n"
        "from eat.errors import exit_on_error\n"
        "@exit_on_error()\n"
        "def main():\n"
        "    argparse.ArgumentParser().parse_args()\n"
        "    print('a line')\n"
        "time.sleep(0.2)\n"
        "main()\n"
    )
    command = f"set -o pipefail; '{sys.executable}' '{script}' {option} {redirect}"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr and "ignored" not in ended.stderr
