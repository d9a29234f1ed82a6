"""What the samples of a clip show: refused, or named in a warning.

A warning has the form ``kind: details``, so that callers can count the kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from eat.audio.frontend import SAMPLE_RATE, WINDOW
from eat.errors import AudioError

# Full scale is 1 and that of 32-bit integers 2^31: a larger sample is a flipped bit.
LARGEST_PEAK = 2.0**31
# Filters and lossy codecs exceed full scale by a few dB, not by 12.
LOUD_PEAK = 4.0
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 1e-3
_INT16_STEP = 2.0**-15
_CANCELLED = 1e-3  # of the peak: lossy codecs and rounding leave a little


class SignalCheck:
    """Looks at the samples of one clip, block after block, before they are mixed.

    Parameters
    ----------
    name
        The file in error messages.

    Attributes
    ----------
    samples
        Number of samples so far, per channel.
    peak
        Largest magnitude so far.
    """

    def __init__(self, name: object) -> None:
        self.name = name
        self.samples = 0
        self.peak = 0.0
        self._mixed_peak = 0.0
        self._clipped = 0

    @property
    def audible(self) -> bool:
        """Whether anything is left when the channels are averaged."""
        return self._mixed_peak > _CANCELLED * self.peak

    def mix(self, block: np.ndarray) -> Tensor:
        """Check a block `[n, C]` and return the average of its channels `[n]`, float32.

        The block is float32, nominally in [-1, 1], or int16. Raises `AudioError` if a
        sample is NaN, infinite or absurdly large.
        """
        if not len(block):
            return torch.empty(0)
        peak = _peak(block)  # NaN if any sample is
        if not math.isfinite(peak):
            raise AudioError(
                f"{self.name}: contains NaN or infinite samples (export it again)"
            )
        if peak > LARGEST_PEAK:
            raise AudioError(
                f"{self.name}: corrupt, its largest sample is {peak:.3g} and full "
                "scale is 1 (copy or export it again)"
            )
        mono = _average(block)
        self.samples += len(block)
        self.peak = max(self.peak, peak)
        mixed = peak if block.shape[1] == 1 else _peak(mono)
        self._mixed_peak = max(self._mixed_peak, mixed)
        if _FULL_SCALE <= peak <= LOUD_PEAK:
            self._clipped += _clipped_samples(mono)
        return torch.from_numpy(mono)

    def add(self, other: SignalCheck) -> None:
        """Add what another check has seen, of a later part of the clip."""
        self.samples += other.samples
        self.peak = max(self.peak, other.peak)
        self._mixed_peak = max(self._mixed_peak, other._mixed_peak)
        self._clipped += other._clipped

    def warnings(self, sample_rate: int) -> tuple[str, ...]:
        """Return what the samples so far, at this rate, should be warned of."""
        found = []
        window = math.ceil(WINDOW * sample_rate / SAMPLE_RATE)
        if self.samples < window:
            found.append(f"too short: {self.samples} samples, a frame has {window}")
        if self.samples and not self.peak:
            found.append("silent: all samples are zero")
        elif self.samples and not self.audible:
            found.append("silent: the channels cancel each other when averaged")
        if self.peak > LOUD_PEAK:
            found.append(
                f"too loud: peak {self.peak:,.6g}, full scale is 1 (divide samples "
                "scaled as integers by 32768)"
            )
        elif self.samples and self._clipped / self.samples > _CLIPPED_SHARE:
            share = self._clipped / self.samples
            found.append(f"clipped: {share:.1%} of the samples are at full scale")
        return tuple(found)


def _peak(samples: np.ndarray) -> float:
    peak = max(-float(samples.min()), float(samples.max()))
    return peak * _INT16_STEP if samples.dtype == np.int16 else peak


def _average(block: np.ndarray) -> np.ndarray:
    """Return the mean of the channels, bit by bit that of `torch.mean`.

    With one or two channels, torch takes many times longer.
    """
    channels = block.shape[1]
    if block.dtype == np.int16:
        if channels == 1:
            return np.multiply(block[:, 0], _INT16_STEP, dtype=np.float32)
        if channels == 2:  # exact
            total = np.add(block[:, 0], block[:, 1], dtype=np.int32)
            return np.multiply(total, _INT16_STEP / 2, dtype=np.float32)
        block = np.multiply(block, _INT16_STEP, dtype=np.float32)
    if channels > 2:
        return torch.from_numpy(block).mean(dim=1).numpy()
    mono = block[:, 0] + np.float32(0)  # as in a sum that begins with 0: never -0
    if channels == 2:
        mono += block[:, 1]
        mono *= 0.5
    return mono


def _clipped_samples(mono: np.ndarray) -> int:
    """Count the samples at full scale that repeat the one before.

    A loud sine reaches full scale too, but does not stay there.
    """
    full = np.flatnonzero(np.abs(mono[1:]) >= _FULL_SCALE)
    return int((mono[full] == mono[full + 1]).sum())


def signal_warnings(
    wav: Tensor, sample_rate: int = SAMPLE_RATE, name: object = "clip"
) -> tuple[str, ...]:
    """Return what a waveform `[S]` should be warned of.

    Parameters
    ----------
    wav
        Waveform, nominally in [-1, 1].
    sample_rate
        Its sample rate in Hz.
    name
        The file in error messages.

    Returns
    -------
    tuple
        Any of ``too short: ...``, ``silent: ...``, ``too loud: ...`` and
        ``clipped: ...``.

    Raises
    ------
    AudioError
        If a sample is NaN, infinite or absurdly large.
    """
    check = SignalCheck(name)
    check.mix(wav[:, None].numpy())
    return check.warnings(sample_rate)


def kind_of(warning: str) -> str:
    """Return the kind of a warning, the part before the colon."""
    return warning.partition(":")[0]


def join_blocks(blocks: Iterable[Tensor]) -> Tensor:
    """Concatenate blocks of samples; a single one is not copied."""
    parts = [block for block in blocks if len(block)]
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if parts else torch.empty(0)


def regroup(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the samples of blocks in blocks of one size, of which the last is smaller.

    Empty blocks, of which there may be many, are dropped.
    """
    parts: list[Tensor] = []
    samples = 0
    for block in blocks:
        parts.append(block)
        samples += len(block)
        if samples > size:
            *whole, rest = join_blocks(parts).split(size)
            yield from whole
            parts, samples = [rest], len(rest)
    if samples:
        yield join_blocks(parts)
