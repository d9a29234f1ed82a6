"""Other objectives for the same encoder, decoder, masks and compute.

Frame-only prediction, as data2vec 2.0 has it, needs no code: ``hparams/data2vec.yaml``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eat.model.patching import PATCH, grid_of
from eat.pretraining.masking import Masks
from eat.pretraining.model import EATForPreTraining, EATStudent, PretrainingOutput
from eat.pretraining.teacher import EMATeacher
from eat.pretraining.ufo import frame_loss
from eat.utils.random import Generators

PATCH_EPS = 1e-6


def patch_values(spec: Tensor) -> Tensor:
    """Return the values of each patch of log-mel `[B, T, F]`, `[B, N, 256]`.

    The patches are in the order of the encoder's tokens, the values of a patch in that
    of its embedding's weights: frame by frame.
    """
    time, frequency = grid_of(*spec.shape[1:])
    patches = spec.unflatten(2, (frequency, PATCH)).unflatten(1, (time, PATCH))
    return patches.transpose(2, 3).flatten(3).flatten(1, 2)


def normalized_patches(spec: Tensor) -> Tensor:
    """Return the values of each patch `[B, N, 256]` with mean 0 and variance 1.

    As in Audio-MAE (Huang et al. 2022, the ``norm_pix_loss`` of its pre-training
    script); the variance is the unbiased one.
    """
    patches = patch_values(spec.float())
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + PATCH_EPS).sqrt()


class MaskedAutoencoder(EATForPreTraining):
    """Reconstruct the normalized log-mel of the masked patches, as Audio-MAE does.

    The loss is the mean squared error over the values of the masked patches. The CLS
    token has none, and the teacher, a moving average of the encoder, is not used: it
    remains for the model's folder.

    Parameters
    ----------
    student
        Its decoder must have ``output_dim=256``.
    teacher
        The moving average of the student's encoder.
    """

    def __init__(self, student: EATStudent, teacher: EMATeacher) -> None:
        super().__init__(student, teacher, utterance_weight=0.0)

    def forward(
        self,
        spec: Tensor,
        masks: Masks | Tensor,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        update_center: bool = False,
    ) -> PretrainingOutput:
        """Compute the loss of a batch, see :meth:`EATForPreTraining.forward`.

        `update_center` has no effect: there are no targets of a teacher.
        """
        if not isinstance(masks, Masks):
            masks = Masks.from_mask(masks)
        _, predictions = self.student(spec, masks, noise, generator)
        targets = normalized_patches(spec)
        # It divides by the root of the width, 16 of 256 values; Audio-MAE by the width.
        loss = frame_loss(predictions, targets, masks) / PATCH
        return PretrainingOutput(
            loss, loss, torch.zeros_like(loss), targets, predictions
        )
