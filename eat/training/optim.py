"""Parameter groups, layer-wise decay, learning rates, gradient clipping."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def warmup_cosine(
    step: int, peak: float, warmup: int, total: int, floor: float = 0.0
) -> float:
    """Return the learning rate of optimizer step `step` (the first is 0).

    Linear from `floor` to `peak` over `warmup` steps, then a half cosine back to
    `floor` at `total`, where it remains (the official schedule restarts there).
    """
    if step < warmup:
        return floor + (peak - floor) * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))


def layer_scale(name: str, depth: int, layer_decay: float) -> float:
    """Return a parameter's factor of the rate: ``layer_decay^(depth - i)`` in block i.

    All other parameters have 1, also the patch embedding and the CLS token: as in the
    official code, unlike BEiT.
    """
    block = BLOCK.search(name)
    return layer_decay ** (depth - int(block.group(1))) if block else 1.0


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_vectors: bool = True,
    layer_decay: float = 1.0,
    depth: int = 0,
) -> list[dict]:
    """Return optimizer groups of the trainable parameters, one per (scale, decay).

    Parameters
    ----------
    model
        The module to train.
    weight_decay
        Weight decay of matrices.
    decay_vectors
        Whether biases, norms and the CLS token decay as well, as they do in the
        official run (by an oversight in its optimizer).
    layer_decay
        Factor of the learning rate per block from the top; 1 for none.
    depth
        Number of blocks, needed for `layer_decay`.

    Returns
    -------
    list of dict
        With the extra key ``lr_scale``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_vector = parameter.numel() == max(parameter.shape, default=1)
        decay = weight_decay if decay_vectors or not is_vector else 0.0
        key = (layer_scale(name, depth, layer_decay), decay)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in sorted(groups.items())
    ]


def set_learning_rates(
    optimizer: torch.optim.Optimizer,
    step: int,
    peak: float,
    warmup: int,
    total: int,
    floor: float,
    scale_floor: bool = False,
) -> float:
    """Set the learning rate of every group; return that of an unscaled group.

    Parameters
    ----------
    optimizer
        Optimizer whose groups have ``lr_scale``.
    step, peak, warmup, total, floor
        As in :func:`warmup_cosine`.
    scale_floor
        Scale the floor as well. The official code does not: a low block whose peak is
        below the floor has a constant rate.
    """
    for group in optimizer.param_groups:
        scale = group["lr_scale"]
        group_floor = floor * scale if scale_floor else min(floor, peak * scale)
        group["lr"] = warmup_cosine(step, peak * scale, warmup, total, group_floor)
    return warmup_cosine(step, peak, warmup, total, floor)


def clip_gradients(
    parameters: list[nn.Parameter], max_norm: float | None
) -> torch.Tensor:
    """Clip gradients by their global norm; return the norm before.

    Without a positive `max_norm` nothing is clipped.
    """
    limit = max_norm if max_norm and max_norm > 0 else math.inf
    return torch.nn.utils.clip_grad_norm_(parameters, limit)
