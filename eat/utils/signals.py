"""An orderly end: SIGTERM and SIGINT let the step and a checkpoint be finished."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether, and by which signal, the run has been asked to end."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def name(self) -> str:
        """The signal's name; empty before one came."""
        return signal.Signals(self.number).name if self.number else ""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the signals in place of dying; a second SIGINT kills as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


def ignore_signals(worker_id: int) -> None:
    """Let a data worker live on when all processes of its run are asked to end.

    Launchers and batch systems signal a whole group. The main process still needs
    batches to finish its step, and ends its workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked, since only who waits for a signal learns who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
