"""Randomness as a function of where training stands.

Every batch draws from a generator seeded by (seed, epoch, number of the batch), every
clip of pre-training from one seeded by (seed, epoch, place of the clip in the epoch).
Nothing has to be saved: a resumed run draws what the uninterrupted run would have
drawn, and any number of processes draws what one would.
"""

from __future__ import annotations

import hashlib

import torch


def draw_seed(seed: int, epoch: int, number: int, what: str = "batch") -> int:
    """63-bit seed of a batch or clip, without visible relation between neighbours."""
    text = f"{what}/{seed}/{epoch}/{number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def batch_generator(
    seed: int, epoch: int, number: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Generator of the epoch's batch with this number, on the given device."""
    generator = torch.Generator(device=device)
    return generator.manual_seed(draw_seed(seed, epoch, number))


def clip_generators(
    seed: int,
    epoch: int,
    first: int,
    clips: int,
    device: str | torch.device = "cpu",
) -> list[torch.Generator]:
    """Generators of clips that follow each other in an epoch, from place `first` on."""
    seeds = [draw_seed(seed, epoch, first + i, "clip") for i in range(clips)]
    return [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
