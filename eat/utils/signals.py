"""Graceful shutdown: on a signal a run finishes its step and writes a checkpoint."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A launcher's or batch system's request to stop, Ctrl-C, a dropped connection, and what
# batch systems send before a time limit. SIGQUIT (Ctrl-\) still ends a run at once.
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
GRACE = 10  # seconds to finish a step, where workers cannot tell who sent a signal


class Interruption:
    """Record whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.number: int | None = None  # the first signal's

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    @property
    def name(self) -> str:
        """The signal's name; empty before one came."""
        return signal.Signals(self.number).name if self.number else ""

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record signals instead of exiting; a second SIGINT raises as usual.

        An ignored SIGHUP (``nohup``) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        watched = [number for number in SIGNALS if not _is_ignored_hangup(number)]
        before = {number: signal.signal(number, self._record) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
            drop_closed_output()

    def _record(self, number: int, frame: FrameType | None) -> None:
        drop_closed_output()
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number


def _is_ignored_hangup(number: int) -> bool:
    is_hangup = number == getattr(signal, "SIGHUP", None)
    return is_hangup and signal.getsignal(number) == signal.SIG_IGN


def drop_closed_output() -> None:
    """Discard what is written to a terminal or pipe that has been closed.

    Otherwise the next progress bar or message would raise an error.
    """
    if not hasattr(select, "poll"):  # Windows
        return
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            descriptor = stream.fileno() if stream else -1
        except (ValueError, OSError):  # closed, or replaced by one without
            continue
        if descriptor >= 0 and _is_closed(descriptor):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def _is_closed(descriptor: int) -> bool:
    """Return whether the other end of a terminal or pipe is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    closed = select.POLLERR | select.POLLHUP
    return any(events & closed for _, events in poll.poll(0))


def ignore_signals(worker_id: int) -> None:
    """Keep a data worker alive when the process group of its run is signaled.

    Launchers and batch systems signal a whole process group, but the main process still
    needs batches to finish its step. It ends its workers itself, with SIGTERM.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        # Blocked, because only `sigwaitinfo` tells which process sent the signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit on a SIGTERM from the parent process."""
    if hasattr(signal, "sigwaitinfo"):
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
    else:  # macOS: it may come from another process, so leave time to finish the step
        signal.sigwait({signal.SIGTERM})
        time.sleep(GRACE)
    os._exit(0)
