"""Signals are noted, not obeyed at once; a second SIGINT is."""

import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from eat.errors import Interrupted
from eat.utils.signals import (
    SIGNALS,
    Interruption,
    drop_closed_output,
    ignore_signals,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_noted(number):
    interruption = Interruption()
    assert interruption.number is None and interruption.name == ""
    with interruption.watch():
        os.kill(os.getpid(), number)
    assert interruption.number == number
    assert interruption.name == signal.Signals(number).name


def test_second_sigint_kills():
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.number == signal.SIGTERM


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption().watch():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_are_left_alone():
    found = []

    def watch():
        with Interruption().watch():
            found.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [True]


def test_interrupted_is_no_error_that_handlers_swallow():
    assert not issubclass(Interrupted, RuntimeError | ValueError | OSError)


class Slow(torch.utils.data.Dataset):
    """Tells its worker's process, and is in work for a while."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(0.2)
        return os.getpid()


@pytest.mark.slow
def test_data_workers_outlive_the_signals_of_others():
    """As a launcher or batch system sends them, to all processes of a run."""
    options = {"num_workers": 1, "worker_init_fn": ignore_signals}
    batches = iter(torch.utils.data.DataLoader(Slow(), None, **options))
    worker = next(batches)
    for number in SIGNALS:
        subprocess.run(["kill", f"-{int(number)}", str(worker)], check=True)
    assert list(batches) == [worker] * 3


def test_data_workers_obey_their_parent():
    options = {"num_workers": 1, "worker_init_fn": ignore_signals}
    batches = iter(torch.utils.data.DataLoader(Slow(), None, **options))
    os.kill(next(batches), signal.SIGTERM)
    [worker] = multiprocessing.active_children()
    worker.join(timeout=10)
    assert worker.exitcode == 0


def test_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = Interruption()
    try:
        with interruption.watch():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not interruption.requested


SHOUT = """
import os, sys
from eat.utils.signals import Interruption
with Interruption().watch():
    sys.stdin.readline()  # until the other end is closed
    os.kill(os.getpid(), 1)
    for stream in (sys.stdout, sys.stderr):
        print("x" * 100_000, file=stream, flush=True)
sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_output_to_what_was_closed_is_discarded(kind):
    ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOUT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(ours)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 7


def test_output_that_is_read_is_left_alone(capfd):
    print("one")
    drop_closed_output()
    print("two", flush=True)
    assert capfd.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("lacks", ["sigwaitinfo", "pthread_sigmask", "SIGHUP"])
def test_other_systems_lack_some_of_it(lacks):
    """macOS has no sigwaitinfo, Windows none of them."""
    code = f"import signal\nif hasattr(signal, '{lacks}'): del signal.{lacks}\n"
    code += "from eat.utils.signals import *\nwith Interruption().watch():\n"
    code += "    ignore_signals(0)\nprint('works')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment) == b"works\n"
