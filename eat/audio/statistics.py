"""Mean and standard deviation of a corpus's log-mel: the constants of `LogMel`."""

from __future__ import annotations

import math

from torch import Tensor

from eat.audio.frontend import LogMel, num_frames_of


class LogMelStatistics:
    """Running mean and standard deviation of all raw log-mel bins, without padding.

    Batches are merged in float64 as in Chan, Golub and LeVeque (1979), which stays
    accurate for any number of batches and for a mean far from zero.

    Attributes
    ----------
    frames
        Number of frames so far.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._bins = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared differences from the mean

    def update(self, wav: Tensor, lengths: Tensor) -> None:
        """Add a batch of clips.

        Parameters
        ----------
        wav
            Waveforms at 16 kHz in [-1, 1], `[B, S]`, zero-padded at the end.
        lengths
            Lengths in samples `[B]`, int64; a clip shorter than one window of 25 ms has
            no frames and is ignored.
        """
        num_frames = num_frames_of(wav.shape[1])
        # With these constants the normalization is the identity.
        raw = LogMel(mean=0.0, std=0.5, num_frames=num_frames).to(wav.device)
        clips = zip(raw(wav, lengths), num_frames_of(lengths).tolist(), strict=True)
        for spec, frames in clips:
            if frames:
                self.frames += frames
                self._merge(spec[:frames].double())

    def _merge(self, values: Tensor) -> None:
        count, mean = values.numel(), values.mean().item()
        total = self._bins + count
        distance = mean - self._mean
        self._squares += (values - mean).square().sum().item()
        self._squares += distance**2 * self._bins * count / total
        self._mean += distance * count / total
        self._bins = total

    @property
    def mean(self) -> float:
        """Mean of all bins; NaN without any frame."""
        return self._mean if self._bins else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of all bins; NaN without any frame.

        It is the `std` of `LogMel`, whose ``(x - mean) / (2 * std)`` then has a
        standard deviation of 0.5.
        """
        return math.sqrt(self._squares / self._bins) if self._bins else math.nan
