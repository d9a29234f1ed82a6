"""Random numbers as a function of the position in training.

Every batch has a generator seeded by (seed, epoch, number of the batch), every clip of
pre-training one seeded by (seed, epoch, position of the clip in the epoch). Nothing has
to be saved: a resumed run, and any number of processes, draw the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


def step_seed(seed: int, epoch: int, number: int, what: str = "batch") -> int:
    """Return a 63-bit seed of a batch or clip; those of neighbors are unrelated."""
    text = f"{what}/{seed}/{epoch}/{number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def batch_generator(
    seed: int, epoch: int, number: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Return the generator of a batch, by its number in the epoch."""
    generator = torch.Generator(device=device)
    return generator.manual_seed(step_seed(seed, epoch, number))


def clip_generators(
    seed: int, epoch: int, first: int, clips: int, device: str | torch.device = "cpu"
) -> list[torch.Generator]:
    """Return the generators of consecutive clips of an epoch, the first at `first`."""
    seeds = [step_seed(seed, epoch, first + i, "clip") for i in range(clips)]
    return [torch.Generator(device=device).manual_seed(seed) for seed in seeds]


def device_of(generator: Generators) -> torch.device:
    """Return the device on which the numbers are drawn."""
    first = generator if isinstance(generator, torch.Generator) else generator[0]
    return first.device


def uniform(batch: int, shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Draw from U[0, 1): `[batch, *shape]` float32."""
    return _draw(torch.rand, batch, shape, generator)


def normal(
    batch: int, shape: tuple[int, ...], generator: Generators, dtype: torch.dtype
) -> Tensor:
    """Draw from N(0, 1): `[batch, *shape]`."""
    return _draw(partial(torch.randn, dtype=dtype), batch, shape, generator)


def integers(
    high: int, batch: int, shape: tuple[int, ...], generator: Generators
) -> Tensor:
    """Draw integers from 0 to `high` - 1: `[batch, *shape]` int64."""
    return _draw(partial(torch.randint, high), batch, shape, generator)


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
