"""Targets and the Utterance-Frame Objective (paper section 3.4).

Both losses are means and their weight is explicit. The official code sums the
utterance loss over the rows of a GPU's batch, so its ``lambda = 1`` is
``utterance_weight = 1 * 12 * 16`` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from eat.pretraining.masking import Masks

NORM_EPS = 1e-5


@dataclass
class UFOLoss:
    """The objective and its parts, scalars.

    Attributes
    ----------
    loss
        ``frame_loss + utterance_weight * utterance_loss``.
    frame_loss
        Mean over removed patches of ``|error|^2 / sqrt(D)``.
    utterance_loss
        Mean over the B*K clones of ``|error|^2 / sqrt(D)``.
    targets
        The teacher's targets `[B, N, D]`.
    """

    loss: Tensor
    frame_loss: Tensor
    utterance_loss: Tensor
    targets: Tensor


def average_layers(ffn_outputs: list[Tensor]) -> Tensor:
    """Average the teacher's layers `[B, N, D]`, each normalized over its N patches.

    The norm is per clip and channel (an instance norm without affine), in fp32.
    """
    normalized = [
        F.instance_norm(layer.float().transpose(1, 2), eps=NORM_EPS).transpose(1, 2)
        for layer in ffn_outputs
    ]
    return sum(normalized) / len(normalized)


def normalize_targets(average: Tensor) -> Tensor:
    """Layer-normalize averaged layers `[B, N, D]` over D, without affine."""
    return F.layer_norm(average, average.shape[-1:], eps=NORM_EPS)


def utterance_frame_objective(
    cls: Tensor,
    predictions: Tensor,
    targets: Tensor,
    masks: Masks,
    utterance_weight: float,
) -> UFOLoss:
    """Compare the student's predictions with the teacher's targets.

    Parameters
    ----------
    cls
        The student's CLS tokens `[B*K, D]`.
    predictions
        Its predictions at the removed patches `[B*K, N-V, D]`, in the order of
        ``masks.ids_mask``.
    targets
        The teacher's targets `[B, N, D]`.
    masks
        The masks of the B*K clones.
    utterance_weight
        Weight of the utterance loss against the frame loss, both means.
    """
    dim = targets.shape[-1]
    clones = len(cls) // len(targets)
    repeated = targets[:, None].expand(-1, clones, -1, -1)
    index = masks.ids_mask.view(len(targets), clones, -1, 1).expand(-1, -1, -1, dim)
    frame_targets = repeated.gather(2, index).flatten(0, 1)
    utterance_targets = targets.mean(dim=1).repeat_interleave(clones, dim=0)
    frame_loss = _scaled_square_error(predictions, frame_targets)
    utterance_loss = _scaled_square_error(cls, utterance_targets)
    loss = frame_loss + utterance_weight * utterance_loss
    return UFOLoss(loss, frame_loss, utterance_loss, targets)


def _scaled_square_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over tokens of the squared error summed over D, divided by sqrt(D)."""
    return F.mse_loss(prediction.float(), target) * target.shape[-1] ** 0.5
