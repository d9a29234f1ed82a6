"""Probes of frozen features, a baseline without a network, and a paired comparison.

Features are computed once, `[M, D]`; probes run on the device they are on. Nothing is
selected on the test clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eat.evaluation.metrics import average_precision, mean_average_precision

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
ITERATIONS = 100  # 300 change the mAP by less than 0.001 from strength 0.003 up
HELD_OUT = 0.2


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on the test clips."""

    scores: Tensor  # [M, C]
    per_class: Tensor  # [C] average precisions; NaN for a label without positives
    mAP: float  # their mean over the labels with positives
    strength: float  # selected regularization strength


def _logistic_path(
    x: Tensor, y: Tensor, strengths: tuple[float, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fit labels `[M, C]` to features `[M, D]` (zero mean) at descending strengths.

    Yields weights `[D, C]` and biases `[C]`; each solution initializes the next.
    Minimizes ``mean_m BCE + strength / 2 |w|^2`` per label by Nesterov's accelerated
    gradient. The curvature of the logistic loss is at most a quarter of the features'
    covariance (Boehning 1992), so along the principal axes each coordinate has its own
    safe step size and no line search is needed.
    """
    left, singular, axes = torch.linalg.svd(x, full_matrices=False)
    z, curvature = left * singular, singular.square()[:, None] / (4 * len(x))
    weight = last_weight = x.new_zeros(len(singular), y.shape[1])
    offset = last_offset = x.new_zeros(y.shape[1])
    for strength in strengths:
        for i in range(ITERATIONS):
            momentum = i / (i + 3)
            w = weight + momentum * (weight - last_weight)
            b = offset + momentum * (offset - last_offset)
            error = ((z @ w + b).sigmoid() - y) / len(x)
            last_weight, last_offset = weight, offset
            weight = w - (z.T @ error + strength * w) / (curvature + strength)
            offset = b - 4 * error.sum(dim=0)
        yield axes.T @ weight, offset


def _logistic_scores(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, strengths: tuple[float, ...]
) -> Iterator[Tensor]:
    """Standardize by the training clips, fit, and yield test logits per strength."""
    mean, std = train_x.mean(dim=0), train_x.std(dim=0) + 1e-6
    test_x = (test_x - mean) / std
    for weight, offset in _logistic_path((train_x - mean) / std, train_y, strengths):
        yield test_x @ weight + offset


def _choose_strength(x: Tensor, y: Tensor, seed: int) -> int:
    """Return the index of the strongest regularization that is as good as the best.

    The one-standard-error rule on the cross-entropy of a random fifth of the clips
    (Hastie, Tibshirani and Friedman 2009, section 7.10). Held-out clips tend to share
    sources with the training clips, which favors too weak a regularization; the rule
    counteracts this.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(x), generator=generator).to(x.device)
    held_out, fitted = shuffled.tensor_split([round(HELD_OUT * len(x))])
    losses = torch.stack(
        [
            F.binary_cross_entropy_with_logits(s, y[held_out], reduction="none").mean(1)
            for s in _logistic_scores(x[fitted], y[fitted], x[held_out], STRENGTHS)
        ]
    )
    means = losses.mean(dim=1)
    best = int(means.argmin())
    margin = losses[best].std() / len(held_out) ** 0.5
    return int((means <= means[best] + margin).nonzero()[0])


def logistic_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, seed: int = 0
) -> ProbeResult:
    """Fit a one-vs-rest logistic regression on frozen features and evaluate it.

    Features `[M, D]` are standardized by the training clips; labels are `[M, C]`, 0 or
    1. A random fifth of the training clips selects the regularization strength
    (``1 / (C * M)`` in scikit-learn's terms), then all of them are fitted.
    """
    train_x, test_x, train_y = train_x.float(), test_x.float(), train_y.float()
    chosen = _choose_strength(train_x, train_y, seed)
    *_, scores = _logistic_scores(train_x, train_y, test_x, STRENGTHS[: chosen + 1])
    per_class = average_precision(scores, test_y)
    return ProbeResult(scores, per_class, per_class.nanmean().item(), STRENGTHS[chosen])


def knn_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    neighbors: int = 40,
) -> float:
    """Return the mAP of a kNN classifier, cheap enough for every epoch.

    The score of a label is the share of the neighbors that have it, weighted by cosine
    similarity (negative ones count as zero). Features are `[M, D]`, labels `[M, C]`.
    """
    train_x = F.normalize(train_x.float(), dim=1)
    scores = []
    for queries in F.normalize(test_x.float(), dim=1).split(1024):
        similarity = queries @ train_x.T
        votes, nearest = similarity.topk(min(neighbors, len(train_x)), dim=1)
        votes = F.normalize(votes.clamp_min(0), p=1, dim=1)
        scores.append(torch.einsum("mk,mkc->mc", votes, train_y[nearest].float()))
    return mean_average_precision(torch.cat(scores), test_y)


def paired_bootstrap(
    scores_a: Tensor, scores_b: Tensor, targets: Tensor, seed: int, draws: int = 1000
) -> tuple[float, float, float]:
    """Return the difference in mAP of two models, with its 95% interval.

    Both models are evaluated on the same resamples of the test clips, so that the
    difficulty of clips cancels. The interval covers the choice of test clips, not the
    variation over training seeds. Scores and targets are `[M, C]`.

    Returns
    -------
    tuple[float, float, float]
        mAP of a minus mAP of b, and the 2.5% and 97.5% quantiles of that difference.
    """
    num_clips, num_classes = targets.shape
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(num_clips, (draws, num_clips), generator=generator)
    ones = torch.ones(draws, num_clips)
    counts = torch.zeros(draws, num_clips).scatter_add_(1, chosen, ones)
    differences = []
    # In chunks, so that each tensor [draws, M, C] takes about 32 MB.
    for weights in counts.split(max(1, 4_000_000 // (num_clips * num_classes))):
        weights = weights.to(targets.device)
        a = average_precision(scores_a, targets, weights).nanmean(dim=1)
        b = average_precision(scores_b, targets, weights).nanmean(dim=1)
        differences.append(a - b)
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64, device=targets.device)
    low, high = torch.cat(differences).quantile(limits).tolist()
    mean_a = mean_average_precision(scores_a, targets)
    return mean_a - mean_average_precision(scores_b, targets), low, high


def log_mel_statistics(spec: Tensor, frames: Tensor) -> Tensor:
    """Return mean and standard deviation of each mel bin `[B, 2F]`, a baseline.

    `spec` is log-mel `[B, T, F]`, `frames` the numbers of frames without padding `[B]`.
    """
    count = frames.to(spec.device)[:, None]
    real = (torch.arange(spec.shape[1], device=spec.device) < count)[..., None]
    mean = (spec * real).sum(dim=1) / count
    squares = ((spec - mean[:, None]).square() * real).sum(dim=1) / count
    return torch.cat([mean, squares.sqrt()], dim=1)
