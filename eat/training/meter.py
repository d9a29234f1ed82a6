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


@register_checkpoint_hooks
class IntervalMeter:
    """Running means since the last log line, and the batches left out so far.

    Part of the checkpoint.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.reset()

    def reset(self) -> None:
        """Begin a new interval."""
        self.sums: dict[str, Tensor | float] = {}
        self.batches = 0
        self.clips = 0
        self.started = time.perf_counter()
        self.paused: float | None = None

    def pause(self) -> None:
        """Stop the clock for a validation."""
        self.paused = time.perf_counter()

    def go_on(self) -> None:
        """Let the clock run again."""
        if self.paused is not None:
            self.started += time.perf_counter() - self.paused
            self.paused = None

    def add(self, figures: dict[str, Tensor], clips: int) -> None:
        """Add one batch; scalars stay on their device, so nothing waits for them."""
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.batches += 1
        self.clips += clips

    def means(self) -> dict[str, float]:
        """Means over the interval, and clips per second of this process."""
        seconds = time.perf_counter() - self.started
        means = {key: float(value) / self.batches for key, value in self.sums.items()}
        return {**means, "clips_per_second": self.clips / seconds}

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        sums = {key: float(value) for key, value in self.sums.items()}
        state = {"sums": sums, "batches": self.batches, "skipped": self.skipped}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        self.reset()
        self.sums, self.batches = state["sums"], state["batches"]
        self.skipped = state["skipped"]
        # Clips seen before the interruption would not fit this process's clock.
