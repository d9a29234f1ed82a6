"""Data workers: a loader that can be interrupted, and what to report when they fail."""

from __future__ import annotations

import errno
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from traceback import walk_tb
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from eat.data.dataset import ClipDataset
from eat.data.shared_memory import drop_buffers
from eat.errors import ExperimentError

logger = logging.getLogger(__name__)

WORKER_TIMEOUT = 600  # seconds to wait for a batch
WAIT_SECONDS = 4  # before asking whether to stop
POLL_SECONDS = 1

# What torch reports of a dead worker, and what that may mean.
CAUSES = {
    "Bus error": "no room in shared memory: enlarge /dev/shm, as with `docker run "
    "--shm-size 2g`, or lower --num_workers or --batch_size",
    "Killed": "out of memory: lower --num_workers or --batch_size, or request more "
    "memory",
}
STORAGE = "check memory and storage"
FEWER_FILES = "raise the limit, as with `ulimit -n 4096`, or lower --num_workers"
TOO_MANY_FILES = ("Too many open files", "items of ancdata")


class ClipLoader(DataLoader):
    """A loader that can be interrupted while it waits for its workers.

    Once no batch has come for WAIT_SECONDS, `while_waiting` is called every second; it
    may raise. Further options are those of torch's loader.

    Raises
    ------
    ExperimentError
        If the workers cannot be started, or no batch comes for WORKER_TIMEOUT seconds.
    """

    def __init__(
        self,
        dataset: Dataset,
        while_waiting: Callable[[], None] = lambda: None,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        _warn_of_many(num_workers)
        timeout = POLL_SECONDS if num_workers else 0
        with _without_torch_warning():
            super().__init__(
                dataset, num_workers=num_workers, timeout=timeout, **options
            )
        self.while_waiting = while_waiting
        self._started: list[BaseProcess] = []

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Start the workers and return the batches."""
        drop_buffers()  # or new workers would hold on to them
        before = active_children()
        try:
            with _without_torch_warning():
                batches = super().__iter__()
        except OSError as error:
            _disable_destructor(error)
            raise ExperimentError(
                f"num_workers {self.num_workers}: the data workers cannot be started, "
                f"{error.strerror} ({_start_remedy(error)})"
            ) from error
        if not self.num_workers:
            return batches
        if started := [child for child in active_children() if child not in before]:
            self._started = started  # otherwise the persistent ones are used
        return self._poll(batches)

    def _poll(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches; the iterator survives its timeouts."""
        last = time.monotonic()
        try:
            while True:
                try:
                    yield next(batches)
                    last = time.monotonic()
                except StopIteration:
                    return
                except (RuntimeError, OSError) as error:
                    if _is_too_many_files(error):
                        raise _too_many_files(self.num_workers) from error
                    if "DataLoader timed out" not in str(error):
                        raise
                    self._check_wait(time.monotonic() - last)
        except BaseException:
            # Torch gives each worker five seconds to finish its batch.
            for worker in self._started:
                worker.terminate()
            self._iterator = None  # of persistent workers
            raise

    def _check_wait(self, seconds: float) -> None:
        if seconds > WORKER_TIMEOUT:
            raise RuntimeError(f"DataLoader: no batch for {seconds:.0f} seconds")
        if seconds > WAIT_SECONDS:
            self.while_waiting()


@contextmanager
def _without_torch_warning() -> Iterator[None]:
    """Silence its four lines about more workers than cores, for our one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*worker processes in total")
        yield


def _is_too_many_files(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return any(text in str(error) for text in TOO_MANY_FILES)


def _too_many_files(num_workers: int) -> ExperimentError:
    return ExperimentError(
        f"num_workers {num_workers}: too many open files ({FEWER_FILES})"
    )


def _disable_destructor(error: OSError) -> None:
    """Keep torch's half-built iterator from printing a traceback when it is deleted.

    Workers that have been started end with this process.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if isinstance(
            iterator := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter
        ):
            iterator._shutdown = True


def _start_remedy(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return FEWER_FILES
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return "lower --num_workers, or request more memory and processes"
    return "they need a writable /dev/shm with some room; --num_workers 0 needs none"


@cache
def _warn_of_many(num_workers: int) -> None:
    """Warn once if there are more workers on this machine than CPU cores."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    total = num_workers * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if total > cores:
        logger.warning(
            "num_workers %d: %d data workers on %d CPU cores (lower --num_workers "
            "unless storage is slow)",
            num_workers,
            total,
            cores,
        )


@contextmanager
def worker_errors(*datasets: Dataset | None) -> Iterator[None]:
    """Raise an `ExperimentError` that names the clips if a worker died or hangs."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        cause = str(error.__cause__)  # names the signal, if there was one
        text = (cause if "DataLoader" in cause else str(error)).splitlines()[0]
        found = [remedy for name, remedy in CAUSES.items() if f": {name}" in text]
        reading = [d.clips_being_read() for d in datasets if isinstance(d, ClipDataset)]
        clips = ", ".join(chain.from_iterable(reading)) or "unknown"
        raise ExperimentError(
            f"{text.split('. It is possible')[0].rstrip('. ')} (clips being read: "
            f"{clips}; {(found or [STORAGE])[0]}, then re-run the same command to "
            "resume)"
        ) from error
