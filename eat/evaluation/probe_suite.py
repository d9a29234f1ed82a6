"""All probes by name, and what to report of their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eat.evaluation.bootstrap import bootstrap, paired_bootstrap
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.probe_training import Layers, token_probe
from eat.evaluation.probing import ProbeResult, knn_probe


def run_probe(
    name: str,
    train_x: Tensor | Layers,
    train_y: Tensor,
    test_x: Tensor | Layers,
    test_y: Tensor,
    *,
    seed: int = 0,
    multi_label: bool = True,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Fit a probe on training clips and evaluate it on test clips.

    Parameters
    ----------
    name
        ``knn`` or ``linear``, or a probe of tokens, see
        `eat.evaluation.probe_training.token_probe`.
    train_x, test_x
        A vector for each clip, `[M, D]`, or of a probe of tokens those of each layer.
    train_y, test_y
        Multi-hot labels `[M, C]`.
    seed
        Of the held-out clips and of the training.
    multi_label
        Whether a clip may have several labels: mAP instead of accuracy.
    device
        Device to train on, of the probes that are trained step by step.
    """
    if isinstance(train_x, Tensor) and isinstance(test_x, Tensor):
        data = train_x, train_y, test_x, test_y
        if name == "knn":
            return knn_probe(*data, multi_label=multi_label)
        return linear_probe(*data, seed=seed, multi_label=multi_label)
    assert not (isinstance(train_x, Tensor) or isinstance(test_x, Tensor))
    layers = train_x, train_y, test_x, test_y
    return token_probe(name, *layers, seed=seed, multi_label=multi_label, device=device)


def summarize(
    results: Sequence[ProbeResult],
    targets: Tensor,
    reference: Sequence[ProbeResult] | None = None,
) -> dict[str, Any]:
    """Return what to report of a probe's results, one for each seed, as JSON values.

    ``value``, ``low`` and ``high`` are the mean over seeds and its interval over clips
    and seeds, see `eat.evaluation.bootstrap`; ``model_minus_this`` is the difference
    to the reference, the model that is evaluated, with the same seeds.
    Targets are `[M, C]`.
    """
    scores, metric = _stack(results), results[0].metric
    multi_label = metric == "mAP"
    report: dict[str, Any] = {
        "metric": metric,
        **bootstrap(scores, targets, multi_label=multi_label)._asdict(),
        "by_seed": [result.value for result in results],
        "chosen": [result.chosen for result in results],
    }
    if reference is not None:
        pair = _stack(reference), scores
        difference = paired_bootstrap(*pair, targets, multi_label=multi_label)
        report["model_minus_this"] = difference._asdict()
    return report


def _stack(results: Sequence[ProbeResult]) -> Tensor:
    return torch.stack([result.scores for result in results])
