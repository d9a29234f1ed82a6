"""Data workers: how long to wait for them, and what to report when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch.utils.data import Dataset

from eat.data.dataset import ClipDataset
from eat.errors import ExperimentError

WORKER_TIMEOUT = 600  # seconds to wait for a batch


def timeout(num_workers: int) -> int:
    """Return the ``timeout`` of a loader, which must be 0 without workers."""
    return WORKER_TIMEOUT if num_workers else 0


@contextmanager
def worker_errors(*datasets: Dataset | None) -> Iterator[None]:
    """Raise an `ExperimentError` that names the clips if a worker died or hangs."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        reading = [d.clips_being_read() for d in datasets if isinstance(d, ClipDataset)]
        clips = ", ".join(chain.from_iterable(reading)) or "unknown"
        raise ExperimentError(
            f"{str(error).splitlines()[0]} (clips being read: {clips}; check memory "
            "and storage, then re-run the same command to resume)"
        ) from error
