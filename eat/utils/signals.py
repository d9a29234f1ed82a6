"""Graceful shutdown: on SIGTERM or SIGINT a run finishes its step and a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
        """Record signals instead of exiting; a second SIGINT raises as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {number: signal.signal(number, self._record) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


def ignore_signals(worker_id: int) -> None:
    """Keep a data worker alive when the process group of its run is signaled.

    Launchers and batch systems signal a whole process group, but the main process still
    needs batches to finish its step. It ends its workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked, because only `sigwaitinfo` tells which process sent the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit on a SIGTERM from the parent process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
