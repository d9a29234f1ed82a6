"""How what the windows of a recording give is joined again."""

from __future__ import annotations

import torch
from torch import Tensor


class WindowMean:
    """The mean over windows of one value each."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Add the value of a window, of any shape."""
        self._total = values if self._total is None else self._total + values
        self._count += 1

    def result(self) -> Tensor:
        """Return the mean."""
        assert self._total is not None
        return self._total / self._count


class Stitcher:
    """Joins the frames of windows; those that several windows have are averaged."""

    def __init__(self) -> None:
        self._done: list[Tensor] = []
        self._first = 0  # the frame of the recording at which the sums begin
        self._sums = torch.empty(0)
        self._counts = torch.empty(0)

    def __bool__(self) -> bool:
        return self._sums.ndim > 1

    def add(self, start: int, values: Tensor) -> None:
        """Add the frames `[L, n, ...]` of a window; no window begins before another."""
        if not self:
            self._sums, self._counts = values, values.new_ones(values.shape[1])
            return
        self._finish(start - self._first)
        seen, new = len(self._counts), values.shape[1] - len(self._counts)
        sums = [self._sums + values[:, :seen], values[:, seen:]]
        self._sums = torch.cat(sums, dim=1)
        self._counts = torch.cat([self._counts + 1, self._counts.new_ones(new)])

    def result(self) -> Tensor:
        """Return all frames `[L, T, ...]`."""
        self._finish(len(self._counts))
        return torch.cat(self._done, dim=1)

    def _finish(self, frames: int) -> None:
        """Average the first frames of the sums, which no later window has."""
        sums, self._sums = self._sums[:, :frames], self._sums[:, frames:]
        counts, self._counts = self._counts[:frames], self._counts[frames:]
        self._done.append(sums / counts.view(-1, *[1] * (sums.ndim - 2)))
        self._first += frames
