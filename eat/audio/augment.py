"""Augmentations for fine-tuning: whole batches, on any device.

Every random number comes from the given NumPy generator: those of a whole batch on the
host, those of its clips by a seed on the batch's device. They are the same on all
devices, and nothing waits for the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eat.utils.random import CounterGenerator, uniform


def _of_clips(generator: np.random.Generator, like: Tensor) -> CounterGenerator:
    """Return the generators of the clips of a batch, on its device."""
    seed = int(generator.integers(2**63))
    return CounterGenerator.from_seed(seed, len(like), like.device)


def roll_and_gain(
    wav: Tensor, lengths: Tensor, generator: np.random.Generator
) -> Tensor:
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
    clips, lengths = _of_clips(generator, wav), lengths[:, None]
    shift = (uniform(len(wav), (1,), clips) * lengths).long()
    # The 10th smallest of 19 uniforms is exactly Beta(10, 10).
    gain = uniform(len(wav), (19,), clips).sort(dim=1).values[:, 9:10] + 0.5
    position = torch.arange(wav.shape[1], device=wav.device)
    source = (position - shift) % lengths.clamp(min=1)
    rolled = wav.gather(1, source).mul_(gain.to(wav.dtype))
    return rolled.masked_fill_(position >= lengths, 0.0)


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
    generator: np.random.Generator,
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
    if alpha == 0 or generator.random() >= probability:
        return spec, labels
    return mix_with_flipped(spec, labels, generator.beta(alpha, alpha))


def noise_and_shift(spec: Tensor, generator: np.random.Generator) -> Tensor:
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
    batch, frames, bins = spec.shape
    clips = _of_clips(generator, spec)
    strength = uniform(batch, (1, 1), clips) / 10
    noise = uniform(batch, (frames, bins), clips)
    shift = (uniform(batch, (1,), clips) * 20).long() - 10
    rows = torch.arange(batch, device=spec.device)[:, None]
    source = (torch.arange(frames, device=spec.device) - shift) % frames
    return torch.addcmul(spec, noise, strength)[rows, source]


def _mask_along(size: int, max_width: float, clips: CounterGenerator) -> Tensor:
    """Draw one masked interval per clip along an axis, `[B, size]` bool."""
    width = uniform(len(clips), (1,), clips) * max_width
    start = (uniform(len(clips), (1,), clips) * (size - width)).long()
    position = torch.arange(size, device=clips.device)
    return (position >= start) & (position < start + width.long())


def spec_augment(spec: Tensor, ratio: float, generator: np.random.Generator) -> Tensor:
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
    clips = _of_clips(generator, spec)
    band = _mask_along(bins, bins * ratio, clips)
    stretch = _mask_along(frames, frames * ratio, clips)
    return spec.masked_fill(band[:, None, :] | stretch[:, :, None], 0.0)
