"""Resampling in bounded time and memory, whatever the two sample rates are."""

from __future__ import annotations

import math
from functools import lru_cache

import soxr
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import Resample

# Coefficients, 2 MB. All ordinary rates need fewer: 44.1 kHz to 16 kHz needs 76,000.
# Rates with a small common divisor, as 11,127 and 16,000 Hz, would need 10^8.
_LARGEST_FILTER = 2**19
_CACHED = 16  # filters, so at most 32 MB


def resample(wav: Tensor, source: int, target: int) -> Tensor:
    """Resample a waveform `[S]` from one rate to another, both in Hz.

    Ordinary rates use torchaudio's default (windowed sinc), bit by bit in float32. For
    others its filter would be huge, and libsoxr's, which interpolates a small one, is
    used.
    """
    if source == target:
        return wav
    if _filter_size(source, target) <= _LARGEST_FILTER:
        return _resampler(source, target)(wav)
    samples = math.ceil(len(wav) * target / source)
    resampled = torch.from_numpy(soxr.resample(wav.numpy(), source, target, "VHQ"))
    return F.pad(resampled, (0, max(0, samples - len(resampled))))[:samples]


def _filter_size(source: int, target: int) -> int:
    """Return how many coefficients torchaudio's `Resample` computes."""
    divisor = math.gcd(source, target)
    old, new = source // divisor, target // divisor
    width = math.ceil(6 * old / (0.99 * min(old, new)))
    return new * (2 * width + old)


@lru_cache(maxsize=_CACHED)
def _resampler(source: int, target: int) -> Resample:
    """Return torchaudio's default resampler, with its filters computed once.

    `torchaudio.functional.resample` computes the filters in every call, which costs
    many times more than applying them.
    """
    return Resample(source, target, dtype=torch.float32)
