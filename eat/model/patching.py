"""Spectrogram to patch tokens: 16 x 16 embedding and fixed 2-D positions."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

PATCH = 16  # side of a patch, in frames and in mel bins

Count = TypeVar("Count", Tensor, int)


def grid_of(num_frames: int, num_mels: int = 128) -> tuple[int, int]:
    """Return the patch grid ``(time, frequency)`` of a spectrogram.

    Raises
    ------
    ValueError
        If a side is not a multiple of the patch size.
    """
    if num_frames % PATCH or num_mels % PATCH:
        raise ValueError(
            f"spectrogram of {num_frames} frames x {num_mels} mel bins: both must be "
            f"multiples of {PATCH} (pad or cut with LogMel(num_frames=...))"
        )
    return num_frames // PATCH, num_mels // PATCH


def whole_patches(num_frames: Count) -> Count:
    """Return numbers of frames, rounded up to a multiple of the patch size."""
    return (num_frames + PATCH - 1) // PATCH * PATCH


def valid_patches(valid_frames: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches `[B, N]` belong to the clips; the others are padding.

    Parameters
    ----------
    valid_frames
        Frames of each clip before its padding `[B]`. A patch with at least one of them
        is valid, and those of the first time step always are.
    grid
        Number of patches along (time, frequency).
    """
    start = PATCH * torch.arange(grid[0], device=valid_frames.device)
    return (start < valid_frames.clamp(min=1)[:, None]).repeat_interleave(grid[1], 1)


def sincos_positions(dim: int, grid: tuple[int, int]) -> Tensor:
    """Return fixed 2-D sine-cosine positions `[N, D]`, rows in time-major order.

    The first D/2 channels encode the frequency index, the last D/2 the time index;
    each half is ``[sin(p w), cos(p w)]`` with ``w = 10000^(-i / (D/4))``.
    A row does not depend on the number of time steps: a shorter clip uses the first
    rows of a longer grid.

    Parameters
    ----------
    dim
        Width D, a multiple of 4.
    grid
        Number of patches along (time, frequency).
    """
    if dim % 4:
        raise ValueError(f"width {dim}: 2-D positions need a multiple of 4")
    time, frequency = torch.meshgrid(
        torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij"
    )
    # In float64, since float32 powers differ between libraries in the last digits.
    exponent = torch.arange(dim // 4, dtype=torch.float64) / (dim / 4)
    omega = 10000.0**-exponent
    halves = []
    for index in (frequency, time):
        angle = index.flatten().double()[:, None] * omega
        halves += [angle.sin(), angle.cos()]
    return torch.cat(halves, dim=1).float()


class PatchEmbedding(nn.Module):
    """Linear embedding of non-overlapping 16 x 16 patches.

    Parameters
    ----------
    dim
        Width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=PATCH)
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))

    def forward(self, spec: Tensor) -> Tensor:
        """Embed log-mel `[B, T, F]` as `[B, N, D]`, token = time * F/16 + frequency."""
        grid_of(spec.shape[1], spec.shape[2])
        return self.proj(spec[:, None]).flatten(2).transpose(1, 2)
