"""Waveform to normalized log-mel spectrogram, batched and on any device.

The values equal those of ``torchaudio.compliance.kaldi.fbank`` as the official code
calls it: 128 bands from 20 to 8000 Hz, 25 ms Hann windows every 10 ms at 16 kHz,
pre-emphasis 0.97, no dither.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

SAMPLE_RATE = 16_000
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
NUM_MELS = 128
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps


Count = TypeVar("Count", Tensor, int)


def num_frames_of(num_samples: Count) -> Count:
    """Return the number of frames: of windows that fit into the samples."""
    frames = (num_samples - WINDOW) // HOP + 1
    if isinstance(frames, Tensor):
        return frames.clamp(min=0)
    return max(frames, 0)


class LogMel(nn.Module):
    """Kaldi-compatible log-mel of a ragged batch, padded and normalized as in EAT.

    The mean of each clip is subtracted first. Frames after its end are zero *before*
    the normalization, as in the official code; a model's outputs depend on it.

    Parameters
    ----------
    mean, std
        Normalization constants of the corpus: ``(x - mean) / (2 * std)``; -4.268 and
        4.569 for AudioSet.
    num_frames
        Number T of output frames: shorter clips are padded, longer ones cut.
    """

    window: Tensor
    mel_banks: Tensor

    def __init__(self, mean: float, std: float, num_frames: int) -> None:
        super().__init__()
        self.config = {"mean": mean, "std": std, "num_frames": num_frames}
        self.mean = mean
        self.std = std
        self.num_frames = num_frames
        window = torch.hann_window(WINDOW, periodic=False)
        banks, _ = get_mel_banks(NUM_MELS, FFT, SAMPLE_RATE, 20.0, 0.0, 100, -500, 1.0)
        # Kaldi excludes the Nyquist bin.
        banks = F.pad(banks, (0, 1)).T
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_banks", banks.contiguous(), persistent=False)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Return the frames before the padding `[B]` of lengths in samples `[B]`.

        At least 1: a clip too short for a frame is a frame of zeros.
        """
        return num_frames_of(lengths).clamp(1, self.num_frames)

    @torch.no_grad()
    def forward(
        self,
        wav: Tensor,
        lengths: Tensor | None = None,
        num_frames: int | None = None,
    ) -> Tensor:
        """Compute the normalized log-mel of a batch.

        Parameters
        ----------
        wav
            Waveforms at 16 kHz in [-1, 1], `[B, S]`, zero-padded at the end.
        lengths
            Lengths in samples `[B]`; by default all clips are S samples long.
        num_frames
            Number of output frames, by default the module's. For a batch of short
            clips, ``whole_patches(int(frontend.valid_frames(lengths).max()))``.

        Returns
        -------
        Tensor
            `[B, num_frames, 128]` in fp32.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        if lengths is None:
            lengths = torch.full((len(wav),), wav.shape[1], device=wav.device)
        wav = wav.float()
        spec = wav.new_zeros(len(wav), num_frames, NUM_MELS)
        # Clip by clip on a CPU: the frames of a clip stay in its cache.
        clips = 1 if wav.device.type == "cpu" else max(1, len(wav))
        with torch.autocast(wav.device.type, enabled=False):
            for part, length, out in zip(
                wav.split(clips), lengths.split(clips), spec.split(clips), strict=True
            ):
                raw = self._raw(part, length, num_frames)
                out[:, : raw.shape[1]] = raw
        return spec.sub_(self.mean).div_(2 * self.std)

    def _raw(self, wav: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        """Return the log-mel `[B, t, F]` of at most `num_frames`, 0 after each clip."""
        raw = self._log_mel(self._remove_mean(wav, lengths, num_frames))
        frames = torch.arange(raw.shape[1], device=wav.device)
        beyond = frames >= num_frames_of(lengths)[:, None]
        return raw.masked_fill_(beyond[..., None], 0.0)

    @staticmethod
    def _remove_mean(wav: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        """Subtract each clip's mean over its own length; cut to the samples needed.

        The mean is computed in float64. Weak bands of a loud clip amplify the last bit
        of an fp32 mean, which depends on the order of summation, hence on padding and
        the number of threads: in the official code by 6e-5, after normalization.
        """
        used, lengths = (num_frames - 1) * HOP + WINDOW, lengths.clamp(min=1)[:, None]
        position = torch.arange(wav.shape[1], dtype=torch.int32, device=wav.device)
        own = torch.where(position < lengths, wav, 0.0)
        total = own.sum(dim=1, keepdim=True, dtype=torch.float64)
        centered = wav[:, :used] - (total / lengths).float()
        if centered.shape[1] < WINDOW:
            centered = F.pad(centered, (0, WINDOW - centered.shape[1]))
        return centered

    def _log_mel(self, wav: Tensor) -> Tensor:
        """Compute the raw log-mel `[B, t, F]` of all whole windows in `[B, S]`."""
        frames = wav.unfold(1, WINDOW, HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        # Zeros after each window make it as long as the transform.
        padded = frames.new_zeros(*frames.shape[:2], FFT)
        windows = padded[..., :WINDOW]
        torch.mul(frames[..., :-1], PREEMPHASIS, out=windows[..., 1:])
        torch.mul(frames[..., 0], PREEMPHASIS, out=windows[..., 0])
        torch.sub(frames, windows, out=windows).mul_(self.window)
        squares = torch.view_as_real(torch.fft.rfft(padded)).square_()
        return (
            self._to_bands(squares[..., 0] + squares[..., 1]).clamp_(min=FLOOR).log_()
        )

    def _to_bands(self, power: Tensor) -> Tensor:
        if power.is_cuda:
            # SpeechBrain enables TF32, which costs 1e-3 in the log-mel.
            return (power.double() @ self.mel_banks.double()).float()
        return power @ self.mel_banks
