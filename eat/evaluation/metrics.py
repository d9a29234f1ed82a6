"""Average precision and accuracy, in torch.

The average precision equals scikit-learn's: a step function without interpolation, in
which clips with equal scores enter together. In torch it runs on any device, for all
classes and for many resamples of the clips at once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def _ranking(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the clips of each class by descending score.

    Parameters
    ----------
    scores
        `[M, C]`.

    Returns
    -------
    order
        `[M, C]`, the clip at each rank.
    last
        `[M, C]`, the last rank with the same score as this rank.
    """
    ranked, order = scores.sort(dim=0, descending=True)
    ranks = torch.arange(len(scores), device=scores.device)[:, None]
    ends = torch.ones_like(ranked, dtype=torch.bool)
    ends[:-1] = ranked[:-1] != ranked[1:]
    candidates = torch.where(ends, ranks, len(scores))
    return order, candidates.flip(0).cummin(dim=0).values.flip(0)


def average_precision(
    scores: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    weights: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Return the average precision of each class, equal to scikit-learn's.

    ``AP = sum_n (R_n - R_{n-1}) P_n`` over the distinct scores in descending order
    (``sklearn.metrics.average_precision_score``).

    Parameters
    ----------
    scores
        `[M, C]`, logits; probabilities in fp32 tie where logits do not.
    targets
        `[M, C]`, positive where the clip has the label.
    weights
        `[*, M]`, weight of each clip (scikit-learn's ``sample_weight``). Leading
        dimensions are several weightings of the same clips, such as bootstrap
        resamples.

    Returns
    -------
    Tensor
        `[*, C]` in float64; NaN for a class without positives.

    Raises
    ------
    ValueError
        If the shapes differ or a score is NaN.
    """
    scores = torch.as_tensor(scores)
    targets = torch.as_tensor(targets, device=scores.device)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must "
            "have the same shape [clips, classes]"
        )
    if scores.isnan().any():
        raise ValueError("scores contain NaN (a diverged or partly loaded model?)")
    order, last = _ranking(scores)
    if weights is None:
        weights = torch.ones(len(scores), device=scores.device)
    weights = torch.as_tensor(weights, device=scores.device).double()[..., order]
    hits = weights * (targets.gather(0, order) > 0)
    # Resamples may give the first ranks a weight of 0; their precision is not used.
    seen = weights.cumsum(-2).clamp_min(torch.finfo(torch.float64).tiny)
    precision = (hits.cumsum(-2) / seen).gather(-2, last.expand_as(seen))
    return (hits * precision).sum(-2) / hits.sum(-2)


def mean_average_precision(
    scores: Tensor | np.ndarray, targets: Tensor | np.ndarray
) -> float:
    """Return the mean of the per-class average precisions (mAP), as on AudioSet.

    Classes without positives are ignored; the mAP is NaN if no class has any.

    Parameters
    ----------
    scores, targets
        `[M, C]`, see :func:`average_precision`.
    """
    return average_precision(scores, targets).nanmean().item()


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the share of clips whose highest score is that of the true class.

    Parameters
    ----------
    logits
        `[M, C]`.
    targets
        `[M]` class indices, or `[M, C]` one-hot rows.
    """
    if targets.ndim == 2:
        targets = targets.argmax(dim=1)
    return (logits.argmax(dim=1) == targets).double().mean().item()
