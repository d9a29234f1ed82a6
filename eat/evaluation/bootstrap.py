"""Confidence intervals over test clips, and over training seeds where there are some.

Clips and seeds are crossed: every run of a seed is evaluated on the same clips. So a
draw resamples the clips once for all runs, and the runs; its value is the mean over the
resampled runs. With one run the interval covers the choice of test clips only.

An average precision tends to be higher on a resample, which has fewer distinct clips,
than on the clips themselves. So the draws are shifted to have the estimate as mean;
otherwise the estimate would lie at the lower end of its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eat.evaluation.metrics import average_precision

DRAWS = 1000
CHUNK = 4_000_000  # values in memory at a time, 32 MB


class Interval(NamedTuple):
    """An estimate and its 95% interval: quantiles of the draws, without their bias."""

    value: float
    low: float
    high: float


def bootstrap(
    scores: Tensor,
    targets: Tensor,
    *,
    multi_label: bool = True,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Return mAP or accuracy with its interval (Efron and Tibshirani 1993, chapter 13).

    Parameters
    ----------
    scores
        `[M, C]`, or `[S, M, C]` of S runs, over which the metric is averaged and which
        are resampled too.
    targets
        `[M, C]`, multi-hot or one-hot.
    multi_label
        Whether a clip may have several labels: mAP instead of accuracy.
    seed, draws
        Of the resampling; how many resamples.
    """
    return _interval([(1.0, scores)], targets, multi_label, seed, draws)


def paired_bootstrap(
    scores_a: Tensor,
    scores_b: Tensor,
    targets: Tensor,
    *,
    multi_label: bool = True,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Return the metric of a minus that of b, with its interval.

    Both are evaluated on the same resamples of clips, so that the difficulty of clips
    cancels. Scores are `[M, C]`, or `[S, M, C]` of runs that are paired: run s of both
    has the same seed, and a draw resamples the pairs.

    Raises
    ------
    ValueError
        If the scores differ in shape.
    """
    if scores_a.shape != scores_b.shape:
        raise ValueError(
            f"scores of shapes {list(scores_a.shape)} and {list(scores_b.shape)}: must "
            "be of the same clips, classes and seeds to be paired"
        )
    terms = [(1.0, scores_a), (-1.0, scores_b)]
    return _interval(terms, targets, multi_label, seed, draws)


def _interval(
    terms: Sequence[tuple[float, Tensor]],
    targets: Tensor,
    multi_label: bool,
    seed: int,
    draws: int,
) -> Interval:
    """Return the interval of a sum of metrics, each with its factor."""
    shaped = [(f, s if s.ndim == 3 else s[None]) for f, s in terms]
    num_runs, num_clips, _ = shaped[0][1].shape

    def metric(weights: Tensor) -> Tensor:
        """Return the sum for each run and draw, `[S, draws]`."""
        parts = [
            [f * _weighted(s[run], targets, weights, multi_label) for f, s in shaped]
            for run in range(num_runs)
        ]
        return torch.stack([torch.stack(part).sum(dim=0) for part in parts]).cpu()

    generator = torch.Generator().manual_seed(seed)
    clips = _resample(num_clips, draws, generator).to(targets.device)
    runs = _resample(num_runs, draws, generator)
    chunks = clips.split(max(1, CHUNK // num_clips))
    by_run = torch.cat([metric(weights) for weights in chunks], dim=1)
    values = (by_run.T * runs).sum(dim=1) / num_runs
    value = metric(torch.ones_like(clips[:1])).mean().item()
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = (values - values.mean() + value).quantile(limits).tolist()
    return Interval(value, low, high)


def _resample(number: int, draws: int, generator: torch.Generator) -> Tensor:
    """Return how often each of `number` is in each resample, `[draws, number]`."""
    chosen = torch.randint(number, (draws, number), generator=generator)
    ones = torch.ones(draws, number)
    return torch.zeros(draws, number).scatter_add_(1, chosen, ones)


def _weighted(
    scores: Tensor, targets: Tensor, weights: Tensor, multi_label: bool
) -> Tensor:
    """Return the metric `[draws]` of scores `[M, C]`, clips weighted `[draws, M]`."""
    if not multi_label:
        correct = scores.argmax(dim=1) == targets.argmax(dim=1)
        return weights.double() @ correct.double() / weights.sum(dim=1)
    # Class by class: each is sorted once for all draws of a chunk.
    columns = zip(scores.split(1, dim=1), targets.split(1, dim=1), strict=True)
    per_class = [average_precision(s, t, weights) for s, t in columns]
    return torch.cat(per_class, dim=1).nanmean(dim=1)
