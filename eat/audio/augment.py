"""Augmentations for fine-tuning: whole batches, on any device.

Every random number comes from the given generator. A generator on the CPU works with
batches on any device (its numbers are copied there), and gives the same numbers for all
of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def _uniform(size: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw from U[0, 1) on the generator's device, float32; move to that of `like`."""
    draws = torch.rand(size, generator=generator, device=generator.device)
    return draws.to(like.device, non_blocking=True)


def roll_and_gain(wav: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Roll each clip circularly by a random shift, then scale it by a random gain.

    The shift is a uniform integer below the clip's own length; the gain is
    Beta(10, 10) + 0.5, between 0.5 and 1.5. Padding stays zero.

    Parameters
    ----------
    wav
        Waveforms `[B, S]`, zero-padded.
    lengths
        Lengths in samples `[B]`, int64.
    generator
        Source of the random numbers.
    """
    batch = len(wav)
    shifts = (_uniform((batch,), generator, wav) * lengths).long().tolist()
    # The 10th smallest of 19 uniforms is exactly Beta(10, 10).
    uniforms = _uniform((batch, 19), generator, wav)
    gain = uniforms.sort(dim=1).values[:, 9] + 0.5

    rolled = torch.zeros_like(wav)
    # Clip by clip: copying is many times faster than gathering by index.
    for row, clip, length, shift in zip(
        rolled, wav, lengths.tolist(), shifts, strict=True
    ):
        row[:length] = clip[:length].roll(shift)
    return rolled * gain[:, None].to(wav.dtype)


def mix_with_flipped(spec: Tensor, labels: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Mix each clip with its partner, the clip at its index in the reversed batch.

    Parameters
    ----------
    spec
        Spectrograms `[B, T, F]`, or any shape that begins with B.
    labels
        Labels `[B, C]`, float.
    lam
        Weight of the clip itself; that of its partner is 1 - `lam`. In an odd batch the
        clip in the middle is its own partner.

    Returns
    -------
    tuple
        The mixed `spec` and `labels`.
    """
    return (
        lam * spec + (1.0 - lam) * spec.flip(0),
        lam * labels + (1.0 - lam) * labels.flip(0),
    )


def mixup(
    spec: Tensor,
    labels: Tensor,
    alpha: float,
    probability: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix a batch with its reverse, with one lambda ~ Beta(alpha, alpha) for all clips.

    Parameters
    ----------
    spec
        Spectrograms `[B, T, F]`.
    labels
        Labels `[B, C]`, float.
    alpha
        Parameter of the Beta distribution; 0 disables mixing.
    probability
        Probability that this batch is mixed at all.
    generator
        Source of the random numbers.

    Returns
    -------
    tuple
        `spec` and `labels`, mixed or unchanged.
    """
    device = generator.device
    draw = torch.rand((), generator=generator, device=device).item()
    if alpha == 0 or draw >= probability:
        return spec, labels
    # torch cannot draw from Beta with a generator; NumPy can, from a seed.
    seed = torch.randint(2**62, (), generator=generator, device=device).item()
    lam = np.random.default_rng(int(seed)).beta(alpha, alpha)
    return mix_with_flipped(spec, labels, float(lam))


def noise_and_shift(spec: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to each clip, then roll it circularly along time.

    The noise is u * v / 10 with u ~ U[0, 1) for every bin and v ~ U[0, 1) for the clip;
    the shift is a uniform integer from -10 to 9 frames. As in the official code, padded
    frames are treated like the others.

    Parameters
    ----------
    spec
        Normalized log-mel `[B, T, F]`.
    generator
        Source of the random numbers.
    """
    batch, frames, _ = spec.shape
    strength = _uniform((batch, 1, 1), generator, spec) / 10
    noise = _uniform(tuple(spec.shape), generator, spec)
    shift = (_uniform((batch, 1), generator, spec) * 20).long() - 10
    clips = torch.arange(batch, device=spec.device)[:, None]
    source = (torch.arange(frames, device=spec.device) - shift) % frames
    return torch.addcmul(spec, noise, strength)[clips, source]


def _mask_along(
    size: int, max_width: float, spec: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw one masked interval per clip along an axis, `[B, size]` bool."""
    width = _uniform((len(spec), 1), generator, spec) * max_width
    start = (_uniform((len(spec), 1), generator, spec) * (size - width)).long()
    position = torch.arange(size, device=spec.device)
    return (position >= start) & (position < start + width.long())


def spec_augment(spec: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Mask one random band of mel bins and one random interval of frames per clip.

    As `torchaudio.functional.mask_along_axis_iid`, frequency first, then time: a width
    uniform in [0, size * ratio), a start uniform in [0, size - width), both rounded
    down. Masked values are 0, the mean of the normalized log-mel.

    Parameters
    ----------
    spec
        Normalized log-mel `[B, T, F]`.
    ratio
        Largest masked fraction of each axis, in [0, 1].
    generator
        Source of the random numbers.
    """
    _, frames, bins = spec.shape
    band = _mask_along(bins, bins * ratio, spec, generator)
    stretch = _mask_along(frames, frames * ratio, spec, generator)
    return spec.masked_fill(band[:, None, :] | stretch[:, :, None], 0.0)
