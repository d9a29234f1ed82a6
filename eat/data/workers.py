"""Data workers: how long to wait for them, and what to say when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch.utils.data import Dataset

from eat.data.dataset import ClipDataset
from eat.errors import ExperimentError

WORKER_TIMEOUT = 600  # seconds to wait for a batch before a data worker counts as hung


def timeout(num_workers: int) -> int:
    """The loader's ``timeout``: without workers there is none."""
    return WORKER_TIMEOUT if num_workers else 0


@contextmanager
def worker_errors(*datasets: Dataset | None) -> Iterator[None]:
    """Name the clips at which data workers died or hang.

    Raises
    ------
    ExperimentError
        In place of the loader's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        reading = [d.clips_being_read() for d in datasets if isinstance(d, ClipDataset)]
        clips = ", ".join(chain.from_iterable(reading)) or "unknown"
        raise ExperimentError(
            f"{str(error).splitlines()[0]} (clips being read: {clips}; memory full, or "
            "storage that hangs? the same command goes on)"
        ) from error
