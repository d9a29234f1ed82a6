"""Targets and the Utterance-Frame Objective (paper, section 3.4).

Both losses are means, and their weight is explicit. The official code sums the
utterance loss over the rows of a GPU's batch, so its ``lambda = 1`` is
``utterance_weight = 1 * 12 * 16`` here.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor

from eat.pretraining.masking import Masks

NORM_EPS = 1e-5


def average_layers(ffn_outputs: list[Tensor]) -> Tensor:
    """Average the teacher's layers `[B, N, D]`, each normalized over its N patches.

    The norm is per clip and channel (an instance norm without affine), in fp32.
    """
    normalized = [
        F.instance_norm(layer.float().transpose(1, 2), eps=NORM_EPS).transpose(1, 2)
        for layer in ffn_outputs
    ]
    return cast(Tensor, sum(normalized)) / len(normalized)


def clip_average(ffn_outputs: list[Tensor]) -> Tensor:
    """Average the teacher's layers `[B, N, D]` over layers and patches, `[B, D]`.

    They are not normalized: the instance norm of :func:`average_layers` makes the mean
    of each layer 0 in every clip. In fp32; not part of EAT.
    """
    means = [layer.float().mean(dim=1) for layer in ffn_outputs]
    return cast(Tensor, sum(means)) / len(means)


def normalize_targets(average: Tensor) -> Tensor:
    """Layer-normalize averaged layers `[..., D]` over D, without affine."""
    return F.layer_norm(average, average.shape[-1:], eps=NORM_EPS)


def frame_loss(predictions: Tensor, targets: Tensor, masks: Masks) -> Tensor:
    """Compare predictions with the targets at the masked patches.

    Parameters
    ----------
    predictions
        The student's predictions `[B*K, N-V, D]`, in the order of ``masks.ids_mask``.
    targets
        The teacher's targets `[B, N, D]`.
    masks
        Masks of the B*K clones.
    """
    batch, _, dim = targets.shape
    clones = len(predictions) // batch
    repeated = targets[:, None].expand(-1, clones, -1, -1)
    index = masks.ids_mask.view(batch, clones, -1, 1).expand(-1, -1, -1, dim)
    return _scaled_square_error(predictions, repeated.gather(2, index).flatten(0, 1))


def utterance_loss(cls: Tensor, targets: Tensor) -> Tensor:
    """Compare CLS tokens `[B*K, D]` with the utterance targets `[B, D]`."""
    clones = len(cls) // len(targets)
    return _scaled_square_error(cls, targets.repeat_interleave(clones, dim=0))


def _scaled_square_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over tokens of the squared error over D, divided by sqrt(D)."""
    return F.mse_loss(prediction.float(), target) * target.shape[-1] ** 0.5
