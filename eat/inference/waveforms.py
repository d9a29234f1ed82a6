"""Batches of waveforms in the forms people have them, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from eat.audio.frontend import SAMPLE_RATE
from eat.audio.resampling import resample

Waveforms = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]
Lengths = Tensor | np.ndarray | Sequence[float]
MAX_SAMPLE = 256.0  # larger ones are of integers that were not scaled


def split_waveforms(
    wavs: Waveforms,
    wav_lens: Lengths | None = None,
    lengths: Lengths | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> list[Tensor]:
    """Return the clips of a batch `[S]`, without padding, float32 at 16 kHz.

    Parameters
    ----------
    wavs
        Waveforms in [-1, 1]: `[B, S]`, zero-padded at the end, `[S]`, or a list of
        clips `[S]`.
    wav_lens
        Lengths as fractions of S `[B]`.
    lengths
        Lengths in samples `[B]`.
    sample_rate
        Of the waveforms, in Hz.

    Raises
    ------
    ValueError
        If it is not such a batch, or a clip is empty or has NaN or infinite samples.
    """
    rate = sample_rate if isinstance(sample_rate, Real) else 0
    if rate < 1 or not float(rate).is_integer():
        raise ValueError(f"sample_rate {sample_rate!r}: must be a positive integer, Hz")
    if isinstance(wavs, list | tuple):
        if wav_lens is not None or lengths is not None:
            raise ValueError("wavs: a list of clips has its own lengths (give a batch)")
        clips = [_to_tensor(wav, f"wavs[{i}]") for i, wav in enumerate(wavs)]
        for number, clip in enumerate(clips):
            if clip.ndim != 1:
                raise ValueError(
                    f"wavs[{number}]: expected a mono clip [S], got {list(clip.shape)}"
                )
    else:
        clips = _split_batch(_to_tensor(wavs, "wavs"), wav_lens, lengths)
    if not clips:
        raise ValueError("wavs: no clips")
    clips = [clip.float() for clip in clips]
    _check_samples(clips)
    if rate == SAMPLE_RATE:
        return clips
    return [resample(c.cpu().contiguous(), int(rate), SAMPLE_RATE) for c in clips]


def _to_tensor(wav: object, name: str) -> Tensor:
    if not isinstance(wav, Tensor | np.ndarray):
        raise ValueError(
            f"{name}: expected a tensor or an array, got {type(wav).__name__}"
        )
    if isinstance(wav, Tensor):
        floating = wav.is_floating_point()
    else:
        floating = wav.dtype.kind == "f"
    if not floating:
        raise ValueError(
            f"{name}: expected floating-point samples in [-1, 1], got {wav.dtype} "
            "(16-bit integers: divide by 32768)"
        )
    if isinstance(wav, Tensor):
        return wav.detach()
    # A copy: a tensor cannot be read-only, reversed, or in another byte order.
    return torch.from_numpy(np.array(wav, np.float32))


def _split_batch(
    wavs: Tensor, wav_lens: Lengths | None, lengths: Lengths | None
) -> list[Tensor]:
    if wavs.ndim == 1:
        wavs = wavs[None]
    if wavs.ndim != 2:
        raise ValueError(
            f"wavs: expected [B, S] or [S], got {list(wavs.shape)} (average or select "
            "the channels)"
        )
    if len(wavs) > wavs.shape[1] > 0:  # as soundfile reads stereo: [S, channels]
        raise ValueError(
            f"wavs: {list(wavs.shape)} would be {len(wavs)} clips of {wavs.shape[1]} "
            "samples (average the channels, or transpose)"
        )
    if wav_lens is None and lengths is None:
        return [*wavs]
    if wav_lens is not None and lengths is not None:
        raise ValueError("lengths: give either lengths or wav_lens")
    samples = wavs.shape[1]
    if lengths is not None:
        counts = torch.as_tensor(lengths)
        integers = not (counts.is_floating_point() or counts.dtype == torch.bool)
        right = integers and counts.shape == (len(wavs),)
        if not right or counts.min() < 1 or counts.max() > samples:
            raise ValueError(
                f"lengths: expected {len(wavs)} integers from 1 to {samples}, got "
                f"{counts.tolist()} (fractions of the batch: wav_lens)"
            )
    else:
        shares = torch.as_tensor(wav_lens, dtype=torch.float64)
        right = shares.shape == (len(wavs),)
        if not right or not ((shares > 0) & (shares <= 1)).all():
            raise ValueError(
                f"wav_lens: expected {len(wavs)} fractions of the batch's length, in "
                f"(0, 1], got {shares.tolist()} (samples: lengths)"
            )
        counts = (shares * samples).round().long()
    return [wav[:count] for wav, count in zip(wavs, counts.tolist(), strict=True)]


def _check_samples(clips: Sequence[Tensor]) -> None:
    if empty := [number for number, clip in enumerate(clips) if not len(clip)]:
        raise ValueError(f"wavs[{empty[0]}]: 0 samples (remove the clip)")
    bounds = torch.stack([torch.stack(clip.aminmax()) for clip in clips])
    # Read out once; NaN is the minimum and maximum of all.
    for number, peak in enumerate(bounds.abs().amax(dim=1).tolist()):
        if not math.isfinite(peak):
            raise ValueError(f"wavs[{number}]: contains NaN or infinite samples")
        if peak > MAX_SAMPLE:
            raise ValueError(
                f"wavs[{number}]: samples of up to {peak:g}, expected [-1, 1] (from "
                "16-bit integers: divide by 32768)"
            )
