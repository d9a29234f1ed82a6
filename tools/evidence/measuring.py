"""Probes of a model's frozen features: every layer, CLS token and mean of patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eat.audio.frontend import LogMel
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.probing import ProbeResult, knn_probe
from eat.inference.probe_features import pool_layers
from eat.interop.loading import load_encoder, load_frontend
from eat.model.encoder import EATEncoder
from eat.utils.files import atomic_path
from evidence.clips import SUBSETS, LabeledClips

POOLINGS = ("cls", "mean")
PROBES = {"linear": "both", "linear_mean": "mean", "linear_cls": "cls"}  # of all layers


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of one encoder: CLS tokens and mean patch tokens of every layer.

    `values` is `[M, L, 2, D]` by subset, first CLS, then mean.
    """

    values: dict[str, Tensor]
    labels: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def compute(
        cls, encoder: EATEncoder, frontend: LogMel, clips: LabeledClips
    ) -> FrozenFeatures:
        """Encode the labeled clips."""
        values = {}
        for subset in SUBSETS:
            batches = clips.normalized(subset, frontend)
            parts = []
            for spec in tqdm(batches, f"encoding {subset}", leave=False, disable=None):
                pooled = pool_layers(encoder(spec, return_layers=True))
                parts.append(pooled.transpose(1, 2))
            values[subset] = torch.cat(parts)
        return cls(values, clips.labels)

    @classmethod
    def of_model(
        cls, folder: Path, clips: LabeledClips, weights: str = "student"
    ) -> FrozenFeatures:
        """Encode the labeled clips with a model folder's student or teacher.

        The features are kept in the folder, so that other probes need not do it again.
        """
        cache = folder / f"features_{weights}.npz"
        if not cache.exists():
            encoder = load_encoder(folder, weights)
            found = cls.compute(encoder, load_frontend(folder), clips)
            with atomic_path(cache) as path, open(path, "wb") as file:
                arrays = {name: value.numpy() for name, value in found.values.items()}
                np.savez(file, allow_pickle=False, **arrays)
        stored = np.load(cache)
        values = {subset: torch.from_numpy(stored[subset]) for subset in SUBSETS}
        return cls(values, clips.labels)

    @property
    def layers(self) -> int:
        """The number of layers L."""
        return self.values["eval"].shape[1]

    def select(
        self, pooling: str, layer: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what a probe takes: training features and labels, then evaluation.

        Features are those of a layer `[M, D]`, or of all layers side by side
        `[M, L*D]`; of both poolings twice as many.
        """
        pooled = [i for i, name in enumerate(POOLINGS) if pooling in (name, "both")]
        train, test = (
            (value if layer is None else value[:, [layer]])[:, :, pooled].flatten(1)
            for value in (self.values[subset] for subset in SUBSETS)
        )
        return train, self.labels[SUBSETS[0]], test, self.labels[SUBSETS[1]]

    def linear(self, pooling: str, layer: int | None = None) -> ProbeResult:
        """Fit and evaluate a logistic regression."""
        train, train_labels, test, test_labels = self.select(pooling, layer)
        return linear_probe(train, train_labels, test, test_labels)

    def knn(self, pooling: str, layer: int | None = None) -> float:
        """Return the mAP of nearest neighbors."""
        train, train_labels, test, test_labels = self.select(pooling, layer)
        return knn_probe(train, train_labels, test, test_labels).value


def summary(features: FrozenFeatures) -> dict[str, float]:
    """Return the scores of a point of the learning curve."""
    last = features.layers - 1
    return {
        **{name: features.linear(of).value for name, of in PROBES.items()},
        "linear_last": features.linear("mean", last).value,
        "linear_last_cls": features.linear("cls", last).value,
        "knn": features.knn("mean", last),
        "knn_cls": features.knn("cls", last),
    }


def probe_scores(features: FrozenFeatures) -> dict[str, Tensor]:
    """Return the scores of the evaluation clips `[M, C]` by probe of all layers."""
    return {name: features.linear(of).scores for name, of in PROBES.items()}


def by_layer(features: FrozenFeatures) -> dict[str, list[float]]:
    """Return linear mAP and kNN mAP of every layer, for both poolings."""
    layers = range(features.layers)
    scores = {}
    for pooling in POOLINGS:
        linear = [features.linear(pooling, layer).value for layer in layers]
        scores[f"linear_{pooling}"] = linear
        scores[f"knn_{pooling}"] = [features.knn(pooling, layer) for layer in layers]
    return scores
