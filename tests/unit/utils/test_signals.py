"""Signals are noted, not obeyed at once; a second SIGINT is."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest
import torch

from eat.errors import Interrupted
from eat.utils.signals import SIGNALS, Interruption, ignore_signals


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
