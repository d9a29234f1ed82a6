"""From recordings to features: windows, network, and windows joined again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from eat.audio.frontend import SAMPLE_RATE
from eat.inference.reading import AudioFile
from eat.inference.results import Features, Readout
from eat.inference.windows import (
    FRAME,
    TAIL,
    Recording,
    Stitcher,
    Window,
    Windowing,
    WindowMean,
    cut_windows,
    frame_times,
)

Encoded = Iterator[tuple[int, Window, Tensor]]


def encode_windows(
    recordings: Iterable[Recording],
    windowing: Windowing,
    encode: Callable[[Sequence[Window]], Tensor],
    at_once: int,
    tail: int = TAIL,
) -> Encoded:
    """Yield the number of a recording, each of its windows, and what it gives.

    They come in order. The network is given `at_once` windows at a time, also of
    different recordings. By default the windows are those of clips: one, if a recording
    fits into the model.
    """
    windows = (
        (number, window)
        for number, recording in enumerate(recordings)
        for window in cut_windows(recording, windowing, tail)
    )
    while group := [*islice(windows, at_once)]:
        results = encode([window for _, window in group])
        for (number, window), result in zip(group, results, strict=True):
            yield number, window, result


@dataclass(frozen=True)
class Encoding:
    """How recordings become features.

    `encode_windows` turns windows into what :meth:`Readout.__call__` returns; it is
    given `at_once` of them at a time.
    """

    readout: Readout
    windowing: Windowing
    encode_windows: Callable[[Sequence[Window]], Tensor]
    at_once: int

    @property
    def sorts(self) -> bool:
        """Whether clips of similar length should be encoded together."""
        return self.windowing.pad_to == "clip"

    def encode(self, files: Sequence[AudioFile]) -> list[Features]:
        """Return the features of files.

        Raises `AudioError` if one cannot be read.
        """
        recordings = [file.recording() for file in files]
        found = self.run(recordings, "cpu")
        return [
            self._features(values, recording.samples, file.path)
            for values, recording, file in zip(found, recordings, files, strict=True)
        ]

    def run(
        self, recordings: Sequence[Recording], device: torch.device | str
    ) -> list[Tensor]:
        """Return the features of each recording on a device."""
        clips = self.readout.granularity == "clip"
        encoded = encode_windows(
            recordings,
            self.windowing,
            lambda windows: self.encode_windows(windows).to(device),
            self.at_once,
            TAIL if clips else 0,
        )
        join = self._clips if clips else self._frames
        results = join(encoded, len(recordings))
        return results if self.readout.layer_axis else [r[0] for r in results]

    def _features(self, values: Tensor, samples: int, path: Path) -> Features:
        """Add times to the features of a recording of this many samples at 16 kHz."""
        if self.readout.granularity == "clip":
            times = torch.tensor([[0.0, samples / SAMPLE_RATE]], dtype=torch.float64)
        else:
            times = frame_times(samples, self.windowing.hop)
        if self.readout.granularity == "patches":
            times = times.repeat_interleave(self.readout.bands, dim=0)
        return Features(values, times, self.readout.layers, path)

    def _clips(self, encoded: Encoded, num_recordings: int) -> list[Tensor]:
        """Average `[L, D]` over the windows of each recording."""
        means = [WindowMean() for _ in range(num_recordings)]
        for number, _, values in encoded:
            means[number].add(values)
        return [mean.result() for mean in means]

    def _frames(self, encoded: Encoded, num_recordings: int) -> list[Tensor]:
        """Join the frames `[L, T, D]` or patches `[L, 8T, D]` of each recording."""
        size, num_passes = self.windowing.size, FRAME // self.windowing.hop
        stitchers = [
            [Stitcher() for _ in range(num_passes)] for _ in range(num_recordings)
        ]
        for number, window, values in encoded:
            frames = values[:, : window.frames(size)]
            stitchers[number][window.shift].add(window.start, frames)
        # A recording may be too short for the last passes.
        passes = [[s.result() for s in own if s] for own in stitchers]
        joined = [_interleave(frames, num_passes) for frames in passes]
        if self.readout.granularity == "patches":
            return [values.flatten(1, 2) for values in joined]
        return joined


def _interleave(passes: Sequence[Tensor], num_passes: int) -> Tensor:
    """Interleave the frames `[L, T, ...]` of passes along T."""
    if num_passes == 1:
        return passes[0]
    total = sum(values.shape[1] for values in passes)
    first = passes[0]
    joined = first.new_empty(first.shape[0], total, *first.shape[2:])
    for shift, values in enumerate(passes):
        joined[:, shift::num_passes] = values
    return joined
