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
_CHANNELS = 16  # of a convolution, at least
# Samples, for which torch multiplies matrices, in another order for other channels.
_SHORT = 2**16
_CACHED = 16  # filters, so at most 32 MB
# Samples at the lower of two rates, in which all filters here have faded away.
_CONTEXT = 1024


def resample(wav: Tensor, source: int, target: int) -> Tensor:
    """Resample a waveform `[S]` from one rate to another, both in Hz.

    Ordinary rates use torchaudio's default (windowed sinc), bit by bit in float32. For
    others its filter would be huge, and libsoxr's, which interpolates a small one, is
    used.
    """
    if source == target:
        return wav
    if _filter_size(source, target) <= _LARGEST_FILTER:
        return _filter(source, target)(wav)
    samples = _length(len(wav), source, target)
    resampled = torch.from_numpy(soxr.resample(wav.numpy(), source, target, "VHQ"))
    return F.pad(resampled, (0, max(0, samples - len(resampled))))[:samples]


class BlockResampler:
    """Resample a waveform block by block: joined, the results are that of `resample`.

    Each block is resampled with what was around it. It starts a whole number of periods
    into the waveform, after which samples of both rates coincide.

    Parameters
    ----------
    source, target
        Rates in Hz.
    """

    def __init__(self, source: int, target: int) -> None:
        self.rates = source, target
        divisor = math.gcd(source, target)
        self._old, self._new = source // divisor, target // divisor
        context = _CONTEXT * max(1.0, source / target)
        self._context = math.ceil(context / self._old)  # in periods
        self._before = 0  # periods that the rest begins with and that are done
        self._rest = torch.empty(0)
        self._read = self._given = 0  # samples

    def __call__(self, block: Tensor) -> Tensor:
        """Return the samples that a block `[S]` completes."""
        if self._old == self._new:
            return block
        self._read += len(block)
        self._rest = torch.cat([self._rest, block])
        done = len(self._rest) // self._old - self._context
        if done <= self._before:
            return block.new_empty(0)
        ready = self._resampled()[: (done - self._before) * self._new]
        before = min(done, self._context)
        self._rest = self._rest[(done - before) * self._old :].clone()
        self._before = before
        self._given += len(ready)
        return ready

    def finish(self) -> Tensor:
        """Return the samples at the end."""
        left = _length(self._read, *self.rates) - self._given
        end = self._resampled()
        if len(end) < left:  # it was rounded up
            self._rest = F.pad(self._rest, (0, self._old))
            end = self._resampled()
        return end[:left]

    def _resampled(self) -> Tensor:
        return resample(self._rest, *self.rates)[self._before * self._new :]


def _length(samples: int, source: int, target: int) -> int:
    """Return how many samples `resample` returns; torchaudio counts them in float32."""
    divisor = math.gcd(source, target)
    exact = target // divisor * samples / (source // divisor)
    if _filter_size(source, target) <= _LARGEST_FILTER:
        return int(torch.tensor(exact).ceil())
    return math.ceil(exact)


def _filter_size(source: int, target: int) -> int:
    """Return how many coefficients torchaudio's `Resample` computes."""
    divisor = math.gcd(source, target)
    old, new = source // divisor, target // divisor
    width = math.ceil(6 * old / (0.99 * min(old, new)))
    return new * (2 * width + old)


class _Filter:
    """torchaudio's default resampling filter, applied to several periods at once.

    With few outputs in a period, as of 32 kHz to 16 kHz with one, torchaudio's
    convolution has few channels and is slow. Here the outputs of some periods are the
    channels, whose filters are shifted and padded with zeros: the same sums.
    """

    def __init__(self, source: int, target: int) -> None:
        # torchaudio's function computes the filter in every call.
        self._original = Resample(source, target, dtype=torch.float32)
        divisor = math.gcd(source, target)
        old, new = source // divisor, target // divisor
        periods = max(1, _CHANNELS // new)
        filters = [
            F.pad(self._original.kernel, (i * old, (periods - 1 - i) * old))
            for i in range(periods)
        ]
        self._kernel = torch.cat(filters)[:, :, None]
        self._step = periods * old
        self._padding = self._original.width, self._original.width + self._step
        self._rates = source, target

    def __call__(self, wav: Tensor) -> Tensor:
        if len(wav) < _SHORT:
            return self._original(wav)
        padded = F.pad(wav, self._padding)[None, None, None]
        # In two dimensions, of which one is 1, torch copies less than in one.
        resampled = F.conv2d(padded, self._kernel, stride=(1, self._step))
        return resampled[0, :, 0].T.reshape(-1)[: _length(len(wav), *self._rates)]


@lru_cache(maxsize=_CACHED)
def _filter(source: int, target: int) -> _Filter:
    return _Filter(source, target)
