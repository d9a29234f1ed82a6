"""Average precision and accuracy, computed where the scores lie.

The average precision is that of scikit-learn (>= 0.19): the step form, without
interpolation, clips of equal score entering together. It is written in torch so
that it runs on any device, for all classes at once, and for many resamples of the
clips at once.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _ranking(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Order the clips of every class by falling score.

    Parameters
    ----------
    scores : Tensor
        ``[M, C]``.

    Returns
    -------
    order : Tensor
        ``[M, C]``, the clip that stands at each rank.
    last : Tensor
        ``[M, C]``, the last rank that has the same score as this rank.
    """
    ranked, order = scores.sort(dim=0, descending=True)
    ranks = torch.arange(len(scores), device=scores.device)[:, None]
    ends = torch.ones_like(ranked, dtype=torch.bool)
    ends[:-1] = ranked[:-1] != ranked[1:]
    candidates = torch.where(ends, ranks, len(scores))
    return order, candidates.flip(0).cummin(dim=0).values.flip(0)


def average_precision(
    scores: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Average precision of each class, equal to scikit-learn's.

    ``AP = sum_n (R_n - R_{n-1}) P_n`` over the distinct scores in falling order
    (``sklearn.metrics.average_precision_score``).

    Parameters
    ----------
    scores : Tensor
        ``[M, C]``, larger for a more likely label; logits or probabilities.
    targets : Tensor
        ``[M, C]``, positive where the clip has the label.
    weights : Tensor, optional
        ``[*, M]``, how much each clip counts (scikit-learn's ``sample_weight``).
        Leading dimensions hold several weightings of the same clips, such as
        bootstrap resamples.

    Returns
    -------
    Tensor
        ``[*, C]`` in float64; NaN for a class without positives.

    Raises
    ------
    ValueError
        If the shapes differ or a score is NaN.
    """
    if scores.shape != targets.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} differ "
            "in shape: give both as [clips, classes]"
        )
    if scores.isnan().any():
        raise ValueError("scores contain NaN: look for a diverged or half-loaded model")
    order, last = _ranking(scores)
    if weights is None:
        weights = torch.ones(len(scores), device=scores.device)
    weights = weights.double()[..., order]
    hits = weights * (targets.gather(0, order) > 0)
    # A resample may leave out the first clips: nothing seen there, no precision used.
    seen = weights.cumsum(-2).clamp_min(torch.finfo(torch.float64).tiny)
    precision = (hits.cumsum(-2) / seen).gather(-2, last.expand_as(seen))
    return (hits * precision).sum(-2) / hits.sum(-2)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean of the per-class average precisions (mAP), as reported on AudioSet.

    Classes without positives have no average precision and are left out.

    Parameters
    ----------
    scores : Tensor
        ``[M, C]``.
    targets : Tensor
        ``[M, C]``, positive where the clip has the label.

    Returns
    -------
    float
        Between 0 and 1; NaN if no class has a positive.
    """
    return average_precision(scores, targets).nanmean().item()


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of the clips whose highest score is that of the true class.

    Parameters
    ----------
    logits : Tensor
        ``[M, C]``.
    targets : Tensor
        ``[M]`` class numbers, or ``[M, C]`` one-hot rows.

    Returns
    -------
    float
        Between 0 and 1.
    """
    if targets.ndim == 2:
        targets = targets.argmax(dim=1)
    return (logits.argmax(dim=1) == targets).double().mean().item()
