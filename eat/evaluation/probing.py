"""What all probes of frozen features share, and the simplest of them: neighbors.

A probe fits a small classifier on features of training clips and is evaluated on test
clips, of which it selects nothing: its hyper-parameters are chosen on held-out training
clips. Features are computed once; probes run on the device they are on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eat.errors import ExperimentError
from eat.evaluation.metrics import accuracy, mean_average_precision

HELD_OUT = 0.2


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on the M test clips.

    Attributes
    ----------
    scores
        `[M, C]`, which rank clips and classes.
    metric, value
        ``mAP``, or for one label a clip ``accuracy``, and its value.
    chosen
        The hyper-parameters.
    """

    scores: Tensor
    metric: str
    value: float
    chosen: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def evaluate(
        cls,
        scores: Tensor,
        targets: Tensor,
        multi_label: bool = True,
        **chosen: Any,
    ) -> ProbeResult:
        """Evaluate scores `[M, C]`; targets are multi-hot or one-hot `[M, C]`.

        Raises `ExperimentError` if scores are not finite.
        """
        if not scores.isfinite().all():
            raise ExperimentError(
                f"probe {chosen}: its scores are not finite (the training of the probe "
                "diverged: use another --probe or --seed)"
            )
        if multi_label:
            value = mean_average_precision(scores, targets)
            return cls(scores, "mAP", value, chosen)
        return cls(scores, "accuracy", accuracy(scores, targets), chosen)


def split_rows(num_clips: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows to fit and the rows to select hyper-parameters on.

    The latter are a random fifth.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(num_clips, generator=generator)
    held_out, fitted = shuffled.tensor_split([round(HELD_OUT * num_clips)])
    return fitted, held_out


def lowest_loss(losses: Tensor) -> int:
    """Return the index of the lowest loss; a candidate that diverged is never chosen.

    Raises `ExperimentError` if all have diverged.
    """
    if not losses.isfinite().any():
        raise ExperimentError(
            f"probe: with all {len(losses)} choices of hyper-parameters the loss is "
            "not finite (check that the features are, or use another --probe)"
        )
    return int(losses.nan_to_num(torch.inf, torch.inf).argmin())


def clip_losses(logits: Tensor, targets: Tensor, multi_label: bool) -> Tensor:
    """Return the cross-entropy of each clip `[M]`, a mean over classes if multi-label.

    Logits and targets are `[M, C]`.
    """
    if multi_label:
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return loss.mean(dim=1)
    return F.cross_entropy(logits, targets.argmax(dim=1), reduction="none")


def knn_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    neighbors: int = 40,
    multi_label: bool = True,
) -> ProbeResult:
    """Classify by the nearest neighbors, cheap enough for every epoch.

    The score of a label is the share of the neighbors that have it, weighted by cosine
    similarity (negative ones count as zero). Wu et al. (2018, "Unsupervised feature
    learning via non-parametric instance discrimination", section 3.4) introduced the
    probe; they weight by ``exp(cosine / 0.07)``, whose temperature would have to be
    chosen for each network.

    Parameters
    ----------
    train_x, train_y, test_x, test_y
        Features `[M, D]` and multi-hot labels `[M, C]`.
    neighbors
        How many vote.
    multi_label
        Whether a clip may have several labels: mAP instead of accuracy.
    """
    train_x = F.normalize(train_x.float(), dim=1)
    scores = []
    for queries in F.normalize(test_x.float(), dim=1).split(1024):
        similarity = queries @ train_x.T
        votes, nearest = similarity.topk(min(neighbors, len(train_x)), dim=1)
        votes = F.normalize(votes.clamp_min(0), p=1, dim=1)
        scores.append(torch.einsum("mk,mkc->mc", votes, train_y[nearest].float()))
    return ProbeResult.evaluate(
        torch.cat(scores), test_y, multi_label, neighbors=neighbors
    )
