"""Windows of a recording on one regular grid of frames.

Everything is counted in samples at 16 kHz or in frames of 160 ms (2,560 samples, the
width of a patch), so that times never drift.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from eat.audio.frontend import HOP, SAMPLE_RATE, WINDOW
from eat.inference.options import choose
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
            low, high = FRAME / SAMPLE_RATE, span(longest) / SAMPLE_RATE
            if not low <= window <= high:
                raise ValueError(f"window {window}: must be from {low} to {high} s")
            size = min(longest, round(window * SAMPLE_RATE) // FRAME)
        if not 0 <= overlap < 1:
            raise ValueError(
                f"overlap {overlap}: must be in [0, 1), a fraction of the window"
            )
        stride = max(1, round(size * (1 - overlap)))
        hop = FRAME_MS if hop_ms is None else hop_ms
        if hop < HOP_MS or hop % HOP_MS or FRAME_MS % hop:
            raise ValueError(
                f"hop_ms {hop_ms}: must divide {FRAME_MS} and be a multiple of {HOP_MS}"
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
    copies = _copies(recording, FRAME // windowing.hop)
    passes = [
        _cut_pass(_skip(copy, shift * windowing.hop), windowing, tail, shift)
        for shift, copy in enumerate(copies)
    ]
    for windows in zip_longest(
        *passes
    ):  # in step, since a copy keeps what others have read
        yield from (window for window in windows if window is not None)


def _copies(blocks: Iterable[Tensor], number: int) -> list[Iterator[Tensor]]:
    """Return iterators over the same blocks; `itertools.tee` would keep up to 57."""
    iterator = iter(blocks)
    waiting: list[deque[Tensor]] = [deque() for _ in range(number)]

    def copy(own: deque[Tensor]) -> Iterator[Tensor]:
        while own or (following := next(iterator, None)) is not None:
            if not own:
                for queue in waiting:
                    queue.append(following)
            yield own.popleft()

    return [*map(copy, waiting)]


def _cut_pass(
    blocks: Iterable[Tensor], windowing: Windowing, tail: int, shift: int
) -> Iterator[Window]:
    """Cut at every stride; the last window is moved back to end with the recording."""
    size = windowing.size
    kept = torch.empty(0)
    base, following = 0, 0  # first frame in `kept`, and of the next window
    for block in blocks:
        kept = torch.cat([kept.to(block), block]) if len(kept) else block
        # Not the last window: the recording goes on after it.
        while len(kept) > (following - base) * FRAME + span(size):
            kept, base = kept[(following - base) * FRAME :], following
            yield Window(shift, base, kept[: span(size)])
            following += windowing.stride
    if not len(kept):
        return
    frames = count_frames(base * FRAME + len(kept) - tail)
    last = max(frames - size, 0)
    for start in (*range(following, last, windowing.stride), last):
        begin = (start - base) * FRAME
        yield Window(shift, start, kept[begin : begin + span(size)])


def _skip(blocks: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    for block in blocks:
        rest = block[samples:]
        samples -= len(block) - len(rest)
        if len(rest):
            yield rest
