"""Randomness as a function of where training stands.

Every batch draws from a generator seeded by (seed, epoch, number of the batch), every
clip of pre-training from one seeded by (seed, epoch, place of the clip in the epoch).
Nothing has to be saved: a resumed run draws what the uninterrupted run would have
drawn, and any number of processes draws what one would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


def step_seed(seed: int, epoch: int, number: int, what: str = "batch") -> int:
    """63-bit seed of a batch or clip, without visible relation between neighbors."""
    text = f"{what}/{seed}/{epoch}/{number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def batch_generator(
    seed: int, epoch: int, number: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Generator of the epoch's batch with this number, on the given device."""
    generator = torch.Generator(device=device)
    return generator.manual_seed(step_seed(seed, epoch, number))


def clip_generators(
    seed: int,
    epoch: int,
    first: int,
    clips: int,
    device: str | torch.device = "cpu",
) -> list[torch.Generator]:
    """Generators of clips that follow each other in an epoch, from place `first` on."""
    seeds = [step_seed(seed, epoch, first + i, "clip") for i in range(clips)]
    return [torch.Generator(device=device).manual_seed(seed) for seed in seeds]


def device_of(generator: Generators) -> torch.device:
    """Where the numbers are drawn."""
    return _first(generator).device


def uniform(batch: int, shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Draw from U[0, 1): `[batch, *shape]` float32."""
    return _draw(torch.rand, batch, shape, generator)


def normal(
    batch: int, shape: tuple[int, ...], generator: Generators, dtype: torch.dtype
) -> Tensor:
    """Draw from N(0, 1): `[batch, *shape]`."""

    def randn(size: tuple[int, ...], **where: Any) -> Tensor:
        return torch.randn(size, dtype=dtype, **where)

    return _draw(randn, batch, shape, generator)


def integers(
    high: int, batch: int, shape: tuple[int, ...], generator: Generators
) -> Tensor:
    """Draw whole numbers from 0 to `high` - 1: `[batch, *shape]` int64."""

    def randint(size: tuple[int, ...], **where: Any) -> Tensor:
        return torch.randint(high, size, **where)

    return _draw(randint, batch, shape, generator)


def _first(generator: Generators) -> torch.Generator:
    return generator if isinstance(generator, torch.Generator) else generator[0]


def _draw(
    draw: Callable[..., Tensor],
    batch: int,
    shape: tuple[int, ...],
    generator: Generators,
) -> Tensor:
    device = device_of(generator)
    if isinstance(generator, torch.Generator):
        return draw((batch, *shape), generator=generator, device=device)
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators for a batch of {batch} clips")
    return torch.stack([draw(shape, generator=g, device=device) for g in generator])
