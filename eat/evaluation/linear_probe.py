"""The linear probe: logistic regression on one feature vector for each clip."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from eat.evaluation.probing import ProbeResult, clip_losses, lowest_loss

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FOLDS = 5  # of the cross-validation that selects the strength
CONSTANT = 1e-6  # of the mean: a deviation of rounding errors
ITERATIONS = 100  # 300 change the mAP by less than 0.001 from strength 0.003 up


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    seed: int = 0,
    multi_label: bool = True,
) -> ProbeResult:
    """Fit a logistic regression on frozen features and evaluate it.

    One-vs-rest if multi-label, otherwise multinomial, with an L2 penalty: the
    objective of scikit-learn's ``LogisticRegression``. Cross-validation on the training
    clips selects the strength of the penalty; then all are fitted.

    Alain and Bengio (2016, "Understanding intermediate layers using linear classifier
    probes") introduced the probe. Those of SSLAM, ProtoBin and BAT are trained by SGD
    or Adam for a fixed number of steps; this one is a convex problem, solved.

    Parameters
    ----------
    train_x, train_y, test_x, test_y
        Features `[M, D]`, standardized here by the training clips, and multi-hot labels
        `[M, C]`.
    seed
        Of the folds of the cross-validation.
    multi_label
        Whether a clip may have several labels: mAP instead of accuracy.

    Returns
    -------
    ProbeResult
        The logits, and the chosen ``strength``, ``1 / (C * M)`` in scikit-learn's
        terms.
    """
    train_x, test_x, train_y = train_x.float(), test_x.float(), train_y.float()
    chosen = _choose_strength(train_x, train_y, seed, multi_label)
    strengths = STRENGTHS[: chosen + 1]
    *_, scores = _scores(train_x, train_y, test_x, strengths, multi_label)
    strength = STRENGTHS[chosen]
    return ProbeResult.evaluate(scores, test_y, multi_label, strength=strength)


def _path(
    x: Tensor, y: Tensor, strengths: tuple[float, ...], multi_label: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Fit labels `[M, C]` to features `[M, D]` (zero mean) at descending strengths.

    Yields weights `[D, C]` and biases `[C]`; each solution initializes the next.
    Minimizes ``mean_m loss + strength / 2 |w|^2``, with the binary cross-entropy summed
    over labels or the cross-entropy, by Nesterov's accelerated gradient. The curvature
    of the loss is at most a quarter (binary) or half of the features' covariance
    (Boehning 1992), so along the principal axes each coordinate has its own safe step
    size and no line search is needed.
    """
    bound = 0.25 if multi_label else 0.5
    left, singular, axes = torch.linalg.svd(x, full_matrices=False)
    z, curvature = left * singular, bound * singular.square()[:, None] / len(x)
    weight = last_weight = x.new_zeros(len(singular), y.shape[1])
    offset = last_offset = x.new_zeros(y.shape[1])
    for strength in strengths:
        for i in range(ITERATIONS):
            momentum = i / (i + 3)
            w = weight + momentum * (weight - last_weight)
            b = offset + momentum * (offset - last_offset)
            logits = z @ w + b
            predicted = logits.sigmoid() if multi_label else logits.softmax(dim=1)
            error = (predicted - y) / len(x)
            last_weight, last_offset = weight, offset
            weight = w - (z.T @ error + strength * w) / (curvature + strength)
            offset = b - error.sum(dim=0) / bound
        yield axes.T @ weight, offset


def _scores(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    strengths: tuple[float, ...],
    multi_label: bool,
) -> Iterator[Tensor]:
    """Standardize by the training clips, fit, and yield test logits per strength."""
    mean, std = train_x.mean(dim=0), train_x.std(dim=0)
    # Nothing can be learned from a constant feature; in test clips it is ignored too.
    std[std <= CONSTANT * mean.abs()] = torch.inf
    train_x, test_x = (train_x - mean) / std, (test_x - mean) / std
    for weight, offset in _path(train_x, train_y, strengths, multi_label):
        yield test_x @ weight + offset


def _choose_strength(x: Tensor, y: Tensor, seed: int, multi_label: bool) -> int:
    """Return the index of the strength with the lowest cross-entropy on held-out clips.

    By cross-validation over random folds: the choice of a single one varies between
    seeds, which moves the mAP more than many differences that are to be measured.
    """
    generator = torch.Generator().manual_seed(seed)
    folds = torch.randperm(len(x), generator=generator).to(x.device).tensor_split(FOLDS)
    losses = x.new_zeros(len(STRENGTHS))
    for number, held_out in enumerate(folds):
        fitted = torch.cat([*folds[:number], *folds[number + 1 :]])
        path = _scores(x[fitted], y[fitted], x[held_out], STRENGTHS, multi_label)
        parts = [clip_losses(s, y[held_out], multi_label).sum() for s in path]
        losses += torch.stack(parts)
    return lowest_loss(losses)
