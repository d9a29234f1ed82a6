"""Random numbers of a batch, from one generator or from one for each clip.

With a generator for each clip, what is drawn for a clip does not depend on the clips
beside it: not on the batch size, nor on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


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

    def randn(size: tuple[int, ...], **where: object) -> Tensor:
        return torch.randn(size, dtype=dtype, **where)

    return _draw(randn, batch, shape, generator)


def integers(
    high: int, batch: int, shape: tuple[int, ...], generator: Generators
) -> Tensor:
    """Draw whole numbers from 0 to `high` - 1: `[batch, *shape]` int64."""

    def randint(size: tuple[int, ...], **where: object) -> Tensor:
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
