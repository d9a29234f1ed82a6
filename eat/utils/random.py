"""Random numbers as a function of the position in training.

Every batch has a generator seeded by (seed, epoch, number of the batch), every clip of
pre-training one seeded by (seed, epoch, position of the clip in the epoch). Nothing has
to be saved: a resumed run, and any number of processes, draw the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

# Constants of SplitMix64, as signed integers.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
CPU_HASHES = 2**15  # at a time on a CPU: what is computed from them fits its cache


def step_seed(seed: int, epoch: int, number: int, what: str = "batch") -> int:
    """Return a 63-bit seed of a batch or epoch; those of neighbors are unrelated."""
    text = f"{what}/{seed}/{epoch}/{number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def batch_generator(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Return the generator of a batch, by its number in the epoch.

    It draws on the host, so that no number has to be read back from a device.
    """
    return np.random.default_rng(step_seed(seed, epoch, number))


def clip_generators(
    seed: int, epoch: int, first: int, clips: int, device: str | torch.device = "cpu"
) -> CounterGenerator:
    """Return the generators of consecutive clips of an epoch, the first at `first`."""
    base = step_seed(seed, epoch, 0, "clips")
    return CounterGenerator.from_seed(base, clips, device, first)


class CounterGenerator:
    """The generators of B clips, which draw for all clips at once on a device.

    Number i of a clip is the SplitMix64 hash of ``key + i * step``, its `step` an odd
    hash of its key (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014). The numbers of a clip depend on its key only, no clip's
    sequence is a stretch of another's, and being integers they are the same bits on
    every device. No draw waits for the device.

    Parameters
    ----------
    keys
        One key for each clip `[B]`, int64.
    """

    def __init__(self, keys: Tensor) -> None:
        self._keys = keys[:, None]
        self._steps = _hash(self._keys.clone()) | 1
        self._drawn = 0  # hashes of each clip so far

    @classmethod
    def from_seed(
        cls, seed: int, clips: int, device: str | torch.device = "cpu", first: int = 0
    ) -> CounterGenerator:
        """Return the generators of consecutive clips, whose keys all differ."""
        numbers = torch.arange(first, first + clips, device=device)
        return cls(_hash(numbers * GOLDEN + seed))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def device(self) -> torch.device:
        """The device on which the numbers are drawn."""
        return self._keys.device

    def draw(
        self,
        count: int,
        word: torch.dtype,
        convert: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
    ) -> Tensor:
        """Draw `count` random words for each clip and convert them: `[B, count]`.

        Parameters
        ----------
        count
            How many.
        word
            int32 or uint16: two or four words of a hash.
        convert
            Function of a tensor of words that returns as many numbers.
        dtype
            Type of the result.
        """
        words = 8 // word.itemsize
        hashes = -(-count // words)
        # All at once on other devices, to which every operation is a launch.
        size = CPU_HASHES // len(self) if self.device.type == "cpu" else hashes
        size = max(1, min(size, hashes))
        offsets = torch.arange(size, device=self.device) * self._steps
        out = torch.empty(len(self), hashes * words, dtype=dtype, device=self.device)
        for first, part in enumerate(out.split(size * words, dim=1)):
            begin = self._keys + self._steps * (self._drawn + first * size)
            values = begin + offsets[:, : part.shape[1] // words]
            part.copy_(convert(_hash(values).view(word)))
        self._drawn += hashes
        return out[:, :count]


Generators = torch.Generator | CounterGenerator


def uniform(batch: int, shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Draw from U[0, 1), multiples of 2**-24: `[batch, *shape]` float32."""
    if isinstance(generator, torch.Generator):
        size = (batch, *shape)
        return torch.rand(size, generator=generator, device=generator.device)

    def convert(words: Tensor) -> Tensor:
        """Take the upper 24 bits of each word."""
        return (words >> 8 & 0xFFFFFF).float().mul_(2**-24)

    return _draw(batch, shape, generator, torch.int32, convert, torch.float32)


def normal(
    batch: int,
    shape: tuple[int, ...],
    generator: Generators,
    dtype: torch.dtype,
    std: float = 1.0,
) -> Tensor:
    """Draw from N(0, std**2): `[batch, *shape]`.

    Those of a `CounterGenerator` are drawn from 65,536 quantiles of the distribution
    with equal probability, which are the same on every device: mean and variance are
    exact, the distribution function is within 1/131,072, and no value is beyond 4.4
    standard deviations.
    """
    if isinstance(generator, torch.Generator):
        size, device = (batch, *shape), generator.device
        noise = torch.randn(size, generator=generator, device=device, dtype=dtype)
        return noise.mul_(std)
    table = _quantiles(std, dtype, generator.device)

    def convert(words: Tensor) -> Tensor:
        """Take the quantile of each word."""
        return table.index_select(0, words.flatten().int()).view(words.shape)

    return _draw(batch, shape, generator, torch.uint16, convert, dtype)


def integers(
    high: int, batch: int, shape: tuple[int, ...], generator: Generators
) -> Tensor:
    """Draw integers from 0 to `high` - 1: `[batch, *shape]` int64.

    Those of a `CounterGenerator` are ``word * high // 2**32``: their probabilities
    differ from 1 / high by 2**-32 at most.
    """
    if isinstance(generator, torch.Generator):
        size = (batch, *shape)
        return torch.randint(high, size, generator=generator, device=generator.device)

    def convert(words: Tensor) -> Tensor:
        """Scale each word, as an unsigned number, to 0 ... `high` - 1."""
        return (words.long() & 0xFFFFFFFF) * high >> 32

    return _draw(batch, shape, generator, torch.int32, convert, torch.int64)


def _draw(
    batch: int,
    shape: tuple[int, ...],
    generator: CounterGenerator,
    word: torch.dtype,
    convert: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
) -> Tensor:
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators for a batch of {batch} clips")
    values = generator.draw(math.prod(shape), word, convert, dtype)
    return values.reshape(batch, *shape)


def _hash(values: Tensor) -> Tensor:
    """Hash int64 in place: the output function of SplitMix64."""
    for bits, factor in zip((30, 27), FACTORS, strict=True):
        values.bitwise_xor_(_shift_right(values, bits)).mul_(factor)
    return values.bitwise_xor_(_shift_right(values, 31))


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Shift as unsigned integers; torch shifts int64 with its sign."""
    return (values >> bits).bitwise_and_(2 ** (64 - bits) - 1)


@cache
def _quantiles(std: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 65,536 quantiles of N(0, std**2), scaled to that variance exactly."""
    middles = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    values = torch.special.ndtri(middles)
    values *= std / values.square().mean().sqrt()
    return values.to(device, dtype, non_blocking=True)
