"""Signals are noted, not obeyed at once; a second SIGINT is."""

import os
import signal
import threading

import pytest

from eat.training.interruption import SIGNALS, Interrupted, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_noted(number):
    interruption = Interruption()
    assert interruption.number is None and interruption.name == ""
    with interruption.watched():
        os.kill(os.getpid(), number)
    assert interruption.number == number
    assert interruption.name == signal.Signals(number).name


def test_second_sigint_kills():
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.watched():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.number == signal.SIGTERM


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption().watched():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_are_left_alone():
    found = []

    def watch():
        with Interruption().watched():
            found.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [True]


def test_interrupted_is_no_error_that_handlers_swallow():
    assert not issubclass(Interrupted, RuntimeError | ValueError | OSError)
