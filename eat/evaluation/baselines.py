"""Baselines without a network: statistics of log-mel and of MFCC."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MFCC = 40  # coefficients


def log_mel_statistics(spec: Tensor, frames: Tensor) -> Tensor:
    """Return mean and standard deviation over time of each mel bin, `[B, 2F]`.

    `spec` is log-mel `[B, T, F]`, `frames` the numbers of frames without padding `[B]`.
    """
    count = frames.to(spec.device)[:, None]
    real = (torch.arange(spec.shape[1], device=spec.device) < count)[..., None]
    mean = (spec * real).sum(dim=1) / count
    squares = ((spec - mean[:, None]).square() * real).sum(dim=1) / count
    return torch.cat([mean, squares.sqrt()], dim=1)


def mfcc_statistics(spec: Tensor, frames: Tensor, coefficients: int = MFCC) -> Tensor:
    """Return the same statistics of the first cepstral coefficients, `[B, 2K]`.

    Log-mel may be normalized: a factor and an offset of all bins scale the coefficients
    and move the first one, which a standardizing probe does not see.
    """
    return log_mel_statistics(spec @ dct_matrix(spec.shape[2], coefficients), frames)


def dct_matrix(bins: int, coefficients: int) -> Tensor:
    """Return the first columns of the orthonormal DCT-II `[F, K]`, as torchaudio's."""
    place = torch.arange(bins, dtype=torch.float64)[:, None] + 0.5
    matrix = torch.cos(math.pi / bins * place * torch.arange(coefficients))
    matrix[:, 0] *= math.sqrt(0.5)
    return (matrix * math.sqrt(2 / bins)).float()
