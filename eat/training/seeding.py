"""Randomness as a function of where training stands.

Every step draws from a generator seeded by (seed, epoch, step, rank). Nothing has to
be saved: a resumed run draws what the uninterrupted run would have drawn, and two
processes never draw the same masks.
"""

from __future__ import annotations

import hashlib

import torch


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """63-bit seed of a training step, without visible relation between neighbours."""
    text = f"{seed}/{epoch}/{step}/{rank}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def step_generator(
    seed: int, epoch: int, step: int, rank: int = 0, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Generator of a training step on the given device."""
    generator = torch.Generator(device=device)
    return generator.manual_seed(step_seed(seed, epoch, step, rank))
