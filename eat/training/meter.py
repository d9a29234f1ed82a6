"""Means over the steps between two log lines, and the time spent in training."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from eat.utils.distributed import all_gather_objects


class IntervalMeter:
    """Average metrics since the last log line, and measure the time of training.

    Attributes
    ----------
    sums, batches
        Sums of the interval's metrics on this rank, and batches in them.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self._seconds = self._device_seconds = 0.0  # before the clock last started
        self._started: float | None = None
        self.start_waiting()
        self.reset()

    @property
    def seconds(self) -> float:
        """Time spent in training so far, earlier parts of a resumed run included."""
        if self._started is None:
            return self._seconds
        return self._seconds + time.perf_counter() - self._started

    @property
    def device_seconds(self) -> float:
        """The same, summed over the processes that each part of the run had."""
        return self._device_seconds + (self.seconds - self._seconds) * self.world_size

    def pause(self) -> None:
        """Stop the clock, for a validation."""
        self._device_seconds = self.device_seconds
        self._seconds, self._started = self.seconds, None

    def resume(self) -> None:
        """Start the clock; the first batch is awaited."""
        if self._started is None:
            self._started = time.perf_counter()
            self.start_waiting()

    def start_waiting(self) -> None:
        """Start to wait for the next batch."""
        self._waits_since = time.perf_counter()

    def stop_waiting(self) -> None:
        """Count the time since :meth:`start_waiting` as waiting for the loader."""
        self._waited += time.perf_counter() - self._waits_since

    def reset(self) -> None:
        """Start a new interval."""
        self.sums: dict[str, Tensor | float] = {}
        self.batches: float = 0
        self.clips = 0
        self._waited = 0.0
        self._interval_start = self.seconds

    def add(self, metrics: dict[str, Tensor], clips: int) -> None:
        """Add the metrics of one batch; they stay on their device, without a sync."""
        for key, value in metrics.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.batches += 1
        self.clips += clips

    def means(self) -> dict[str, float]:
        """Return the interval's means and, of this rank, how fast it was.

        ``data_share`` is the share of the time in which no batch was there.
        """
        seconds = self.seconds - self._interval_start
        means = {key: float(value) / self.batches for key, value in self.sums.items()}
        speed = {
            "data_share": self._waited / seconds,
            "clips_per_second": self.clips / seconds,
        }
        return means | speed

    def means_of_all_ranks(self) -> dict[str, float]:
        """Return means over the interval and ranks, and the total clips per second."""
        parts = all_gather_objects(self.means())
        sums = {key: sum(part[key] for part in parts) for key in parts[0]}
        rate = sums.pop("clips_per_second")
        means = {key: value / len(parts) for key, value in sums.items()}
        return {**means, "clips_per_second": rate}

    def restore(
        self,
        sums_by_rank: Sequence[dict[str, float]],
        batches: float,
        seconds: float,
        device_seconds: float,
    ) -> None:
        """Continue interval and clock of a run that had the sums `sums_by_rank`."""
        self._seconds, self._device_seconds = seconds, device_seconds
        self.reset()  # the interval's clips per second start from zero
        if len(sums_by_rank) == self.world_size:
            self.sums, self.batches = dict(sums_by_rank[self.rank]), batches
            return
        # With another number of ranks, each continues with an equal share of the total.
        share = 1 / self.world_size
        self.batches = batches * (len(sums_by_rank) * share)
        for key in sums_by_rank[0]:
            self.sums[key] = sum(sums[key] for sums in sums_by_rank) * share
