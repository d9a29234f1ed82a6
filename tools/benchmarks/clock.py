"""Wall clock or CPU time of calls, on any device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Clock:
    """Time calls on a device.

    The clock ``cpu`` is the CPU time of this process over its number of threads: on a
    machine that runs other processes as well, the wall clock measures those too.
    """

    device: torch.device
    kind: str = "wall"

    def time(self, run: Callable[[], object], number: int = 1) -> float:
        """Return the mean seconds of some calls, of all work on the device."""
        start = self._now()
        for _ in range(number):
            run()
        return (self._now() - start) / number

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.kind == "cpu":
            return time.process_time() / torch.get_num_threads()
        return time.perf_counter()
