"""Parameter groups, layer-wise decay, learning rates, clipped steps."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

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


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the norm of all gradients together, a scalar on their device."""
    return get_total_norm(_gradients(optimizer))


def clip_divisor(norm: Tensor, max_norm: float | None) -> Tensor | float:
    """Return what to divide gradients of norm `norm` by to clip them at `max_norm`.

    Without a positive `max_norm` nothing is clipped. The small constant is that of
    :func:`torch.nn.utils.clip_grad_norm_`.
    """
    if not max_norm or max_norm <= 0:
        return 1.0
    return ((norm + 1e-6) / max_norm).clamp(min=1.0)


def step_unless(
    skip: Tensor, optimizer: torch.optim.Optimizer, divisor: Tensor | float = 1.0
) -> None:
    """Divide the gradients and step, unless `skip` is 1.

    Fused optimizers do so within their own pass over the parameters, by the protocol of
    :class:`torch.amp.GradScaler`, and nothing waits for the device. For others the host
    has to read `skip`.

    Parameters
    ----------
    skip
        Scalar, 0.0 or 1.0.
    optimizer
        Any optimizer.
    divisor
        Scalar by which the gradients are divided first.
    """
    scale = divisor if isinstance(divisor, Tensor) else None
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        attributes = vars(optimizer)
        attributes |= {"grad_scale": scale, "found_inf": skip}
        optimizer.step()
        del attributes["grad_scale"], attributes["found_inf"]
    elif not skip:
        if scale is not None:
            torch._foreach_div_(_gradients(optimizer), scale)
        optimizer.step()


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return [p.grad for p in parameters if p.grad is not None]
