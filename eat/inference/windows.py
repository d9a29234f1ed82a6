"""Windows of a recording on one regular grid of frames, cut and joined again.

Everything is counted in samples at 16 kHz or in frames of 160 ms (2,560 samples, the
width of a patch), so that times never drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from eat.audio.frontend import HOP, SAMPLE_RATE, WINDOW
from eat.inference.options import check_number, choose
from eat.model.patching import PATCH

PADDINGS = ("model", "clip")
FRAME = PATCH * HOP  # samples
FRAME_MS = FRAME * 1000 // SAMPLE_RATE
HOP_MS = HOP * 1000 // SAMPLE_RATE
TAIL = WINDOW - HOP  # samples that the last spectrogram frame needs beyond its hop


def count_frames(samples: int, hop: int = FRAME) -> int:
    """Return the number of frames that begin before the end."""
    return math.ceil(samples / hop)


def span(frames: int) -> int:
    """Return how many samples the spectrogram of frames of 160 ms is computed from."""
    return frames * FRAME + TAIL


def frame_times(samples: int, hop: int = FRAME) -> Tensor:
    """Return start and end of all frames in seconds `[T, 2]`, float64.

    Frame k begins at sample ``k * hop`` and is 160 ms long, or ends with the recording.
    """
    start = torch.arange(count_frames(samples, hop)) * hop
    end = (start + FRAME).clamp(max=samples)
    return torch.stack([start, end], dim=1).double() / SAMPLE_RATE


@dataclass(frozen=True)
class Windowing:
    """Where windows are, and how a recording shorter than a window is padded.

    Attributes
    ----------
    size, stride
        Frames of 160 ms of a window, and from one window to the next.
    hop
        Samples between frames: 2,560, or less if there are several passes.
    pad_to
        ``model`` or ``clip``.
    """

    size: int
    stride: int
    hop: int = FRAME
    pad_to: str = "model"

    @classmethod
    def check(
        cls,
        num_frames: int,
        window: float | None = None,
        overlap: float = 0.0,
        hop_ms: int | None = None,
        pad_to: str = "model",
    ) -> Windowing:
        """Check the options for a model of `num_frames`.

        Raises `ValueError`, which names the wrong option.
        """
        choose("pad_to", pad_to, PADDINGS)
        size = longest = num_frames // PATCH
        if window is not None:
            limits = FRAME / SAMPLE_RATE, span(longest) / SAMPLE_RATE
            check_number("window", window, *limits)
            size = min(longest, round(window * SAMPLE_RATE) // FRAME)
        if not (isinstance(overlap, Real) and 0 <= overlap < 1):
            raise ValueError(
                f"overlap {overlap!r}: must be in [0, 1), a fraction of the window"
            )
        stride = max(1, round(size * (1 - overlap)))
        hop = FRAME_MS if hop_ms is None else hop_ms
        if not isinstance(hop, Real) or hop < HOP_MS or hop % HOP_MS or FRAME_MS % hop:
            raise ValueError(
                f"hop_ms {hop_ms!r}: must divide {FRAME_MS} and be a multiple of "
                f"{HOP_MS}"
            )
        return cls(size, stride, int(hop) * SAMPLE_RATE // 1000, pad_to)


class Recording:
    """A recording in blocks `[S]` of any length, which can be read once.

    Attributes
    ----------
    samples
        How many there are; known when all blocks have been read.
    """

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Tensor]:
        for block in self._blocks:
            self.samples += len(block)
            yield block


class Window(NamedTuple):
    """A part of a recording: number of the pass, first frame in it, samples `[S]`."""

    shift: int
    start: int
    wav: Tensor

    def frames(self, size: int) -> int:
        """Return how many of its `size` frames begin before the recording ends."""
        return min(size, count_frames(len(self.wav)))


def cut_windows(
    recording: Iterable[Tensor], windowing: Windowing, tail: int = 0
) -> Iterator[Window]:
    """Cut a recording into windows, of all passes.

    Pass j has the windows of the recording without its first ``j * hop`` samples; its
    frames, interleaved with those of the other passes, are `hop` samples apart.

    Parameters
    ----------
    recording
        Blocks of samples; few are kept in memory.
    windowing
        Size, stride and hop.
    tail
        A last frame of no more samples than this needs no window of its own.
    """
    size, hop = windowing.size, windowing.hop
    shifts = range(FRAME // hop)
    kept = torch.empty(0)
    base, following = 0, 0  # first frame in `kept`, and of the next windows
    for block in recording:
        kept = torch.cat([kept.to(block), block]) if len(kept) else block
        # Not the last windows: the recording continues after those of all passes.
        while len(kept) > (following - base) * FRAME + shifts[-1] * hop + span(size):
            kept, base = kept[(following - base) * FRAME :], following
            for shift in shifts:
                yield Window(shift, base, kept[shift * hop :][: span(size)])
            following += windowing.stride
    for shift in shifts[: count_frames(base * FRAME + len(kept), hop)]:
        own = kept[shift * hop :]
        frames = count_frames(base * FRAME + len(own) - tail)
        last = max(frames - size, 0)  # moved back to end with the recording
        for start in (*range(following, last, windowing.stride), last):
            yield Window(shift, start, own[(start - base) * FRAME :][: span(size)])


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
