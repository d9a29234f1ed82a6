"""Means over the steps between two log lines, exact across interruptions."""

from __future__ import annotations

import json
import time
from pathlib import Path

from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only
from torch import Tensor

from eat.utils.distributed import all_gather_objects


@register_checkpoint_hooks
class IntervalMeter:
    """Running means since the last log line, and the sums of the whole run.

    Part of the checkpoint.

    Parameters
    ----------
    rank, world_size
        Which process this is, of how many that train together.

    Attributes
    ----------
    skipped, skipped_in_a_row
        Steps left out so far, and up to now without one that was not.
    unreadable
        Clips so far that could not be read and were replaced.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self.skipped = self.skipped_in_a_row = self.unreadable = 0
        self._seconds = self._device_seconds = 0.0  # before the clock last started
        self._started: float | None = None
        self.reset()

    @property
    def seconds(self) -> float:
        """Time spent in training so far, in every part of the run."""
        if self._started is None:
            return self._seconds
        return self._seconds + time.perf_counter() - self._started

    @property
    def device_seconds(self) -> float:
        """The same, over all processes, however many each part had."""
        return self._device_seconds + (self.seconds - self._seconds) * self.world_size

    def reset(self) -> None:
        """Begin a new interval."""
        self.sums: dict[str, Tensor | float] = {}
        self.batches = 0
        self.clips = 0
        self._interval_start = self.seconds

    def pause(self) -> None:
        """Stop the clock for a validation."""
        self._device_seconds = self.device_seconds
        self._seconds, self._started = self.seconds, None

    def resume(self) -> None:
        """Let the clock run."""
        if self._started is None:
            self._started = time.perf_counter()

    def add(self, metrics: dict[str, Tensor], clips: int) -> None:
        """Add one batch; scalars stay on their device, so nothing waits for them."""
        for key, value in metrics.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.batches += 1
        self.clips += clips

    def count(self, finite: bool) -> None:
        """Count an optimizer step that was taken or left out."""
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1

    def means(self) -> dict[str, float]:
        """Means over the interval, and clips per second of this process."""
        seconds = self.seconds - self._interval_start
        means = {key: float(value) / self.batches for key, value in self.sums.items()}
        return {**means, "clips_per_second": self.clips / seconds}

    def gather(self) -> None:
        """Bring together what the processes have: only the main one saves."""
        sums = {key: float(value) for key, value in self.sums.items()}
        self._sums_by_rank = all_gather_objects(sums)

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        state = {
            "sums": self._sums_by_rank,
            "batches": self.batches,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "unreadable": self.unreadable,
            "seconds": self.seconds,
            "device_seconds": self.device_seconds,
        }
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        self.skipped, self._seconds = state["skipped"], state["seconds"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.unreadable = state["unreadable"]
        self._device_seconds = state["device_seconds"]
        self.reset()
        # Clips of the interval from before the interruption do not fit this clock.
        parts, self.batches = state["sums"], state["batches"]
        if len(parts) == self.world_size:
            self.sums = parts[self.rank]
        else:  # another number of processes than before: each takes an equal share
            share = 1 / self.world_size
            self.batches *= len(parts) * share
            self.sums = {k: sum(p[k] for p in parts) * share for k in parts[0]}
