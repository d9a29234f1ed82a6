"""Trainings broken on purpose: what only code can break, for the files in `hparams`.

The other failures are settings of ``pretrain_evidence.yaml``, in which the collapse
monitor stops no run.

============================ ===========================================================
Failure                      Settings
============================ ===========================================================
Teacher never updated        ``--ema_start 1 --ema_end 1``
EMA decay too low            ``--ema_start 0.9 --ema_end 0.9``
No EMA: teacher = student    ``--ema_start 0 --ema_end 0``
Targets not normalized       ``hparams/raw_targets.yaml``
Masks of 20%                 ``--mask_sampler "{mask_ratio: 0.2}"``
Input not normalized         ``--norm_mean 0 --norm_std 0.5``
Another corpus's constants   ``--norm_mean -4.268 --norm_std 4.569`` (AudioSet's)
Divided by std, not twice it ``--norm_std 2.158``
Shuffled time                ``hparams/shuffled_frames.yaml``
16 kHz read as 32 kHz        ``hparams/double_speed.yaml``
A tenth of the steps         ``--number_of_epochs 1``
A quarter of the clips       ``--batch_size 1``: as in the official code, the utterance
                             loss then weighs a quarter; ``--lr 0.00075`` scales the lr
Mean of the utterance loss   ``--utterance_weight 1``, not the sum of 4 clips x 4 clones
Sum over an official batch   ``--utterance_weight 192``: 12 clips x 16 clones
Full weight on positions     ``--encoder "{position_scale: 1.0}"``: EAT's
Targets not centered         ``--teacher "{center_momentum: null}"``: EAT's
Decay of matrices only       ``--decay_vectors False``: not EAT's
============================ ===========================================================
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torchaudio.functional import resample

from eat.audio.frontend import SAMPLE_RATE, LogMel
from eat.pretraining.teacher import EMATeacher, Targets


class UnnormalizedTeacher(EMATeacher):
    """Average the layers as they are: no instance norm, no layer norm."""

    @torch.no_grad()
    def targets(self, spec: Tensor, update_center: bool = False) -> Targets:
        """Return the targets of full clips, normalized log-mel `[B, T, F]`.

        A running mean, if there is one, is subtracted as in :class:`EMATeacher`.
        """
        layers = self.encoder(spec, return_ffn=True).ffn_outputs
        targets = torch.stack([layer[:, 1:].float() for layer in layers]).mean(dim=0)
        if self.center_momentum is not None:
            if update_center:
                self._sum += targets.mean(dim=0)
                self._batches += 1
            targets = targets - self.center
        return Targets(targets, targets.mean(dim=1))


class ShuffledFrames(LogMel):
    """Permute the frames of each clip, always in the same way for the same clip.

    Spectra and their number remain, everything that takes time is lost.
    """

    def forward(
        self,
        wav: Tensor,
        lengths: Tensor | None = None,
        num_frames: int | None = None,
    ) -> Tensor:
        """Compute the normalized log-mel `[B, T, F]`, its frames in random order."""
        spec = super().forward(wav, lengths, num_frames)
        return torch.stack(
            [
                frames[_permutation(clip, len(frames)).to(frames.device)]
                for frames, clip in zip(spec, wav, strict=True)
            ]
        )


def _permutation(clip: Tensor, length: int) -> Tensor:
    """Return a permutation that depends on the samples of a clip only."""
    samples = clip.cpu().numpy()
    seed = zlib.crc32(samples[: samples.nonzero()[0].max(initial=-1) + 1].tobytes())
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


class DoubleSpeed(LogMel):
    """Take clips of 16 kHz for clips of 32 kHz: twice as fast, half of them padding.

    So does the official code with its pre-training script's ``h5_format=True``, which
    assumes 32 kHz, if the files are of 16 kHz. Its scripts for fine-tuning read WAV
    files, with the rate that they state.
    """

    def forward(
        self,
        wav: Tensor,
        lengths: Tensor | None = None,
        num_frames: int | None = None,
    ) -> Tensor:
        """Compute the normalized log-mel `[B, T, F]` of clips at double speed."""
        fast = resample(wav.float(), 2 * SAMPLE_RATE, SAMPLE_RATE)
        return super().forward(
            fast, None if lengths is None else lengths // 2, num_frames
        )
