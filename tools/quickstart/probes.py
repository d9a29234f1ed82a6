"""The quick start's probes: logistic regression and kNN on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from eat.audio.frontend import LogMel, num_frames_of
from eat.data.dataset import audio_dataset, collate
from eat.data.manifest import read_labels
from eat.evaluation.baselines import log_mel_statistics
from eat.evaluation.linear_probe import linear_probe
from eat.evaluation.probing import ProbeResult, knn_probe
from eat.model.encoder import EATEncoder
from paper_tables.jobs import HAS_BF16

EVAL_SECONDS = 2.6
Features = Callable[[Tensor, Tensor], Tensor]  # (spectrograms, frames) -> `[M, D]`


class Clips:
    """Spectrograms and labels of the labeled clips, read once."""

    def __init__(self, manifests: Path, data: Path, frontend: LogMel) -> None:
        self.labels = read_labels(manifests / "labels.csv")
        self.frontend = frontend
        self.train = self._read(manifests / "balanced_train.csv", data)
        self.test = self._read(manifests / "eval.csv", data)

    def _read(self, manifest: Path, data: Path) -> tuple[Tensor, Tensor, Tensor]:
        """Return spectrograms `[M, T, F]`, numbers of frames `[M]`, labels `[M, C]`."""
        dataset = audio_dataset(manifest, data, self.labels, EVAL_SECONDS)
        loader = torch.utils.data.DataLoader(dataset, 32, collate_fn=collate)
        name = f"  reading {manifest.stem}"
        parts = [
            (self.frontend(b.wav, b.lengths), num_frames_of(b.lengths), b.labels)
            for b in tqdm(loader, name, leave=False, disable=None)
        ]
        spec, frames, labels = map(torch.cat, zip(*parts, strict=True))
        return spec, frames, labels

    def probe(self, features: Features) -> ProbeResult:
        """Fit and evaluate a logistic regression on features."""
        (*train, labels), (*test, test_labels) = self.train, self.test
        train_x, test_x = features(*train), features(*test)
        return linear_probe(train_x, labels, test_x, test_labels)

    def log_mel_knn(self, held_out: float) -> float:
        """Return the kNN mAP of log-mel statistics on the clips of the training log."""
        spec, frames, labels = self.train
        features = log_mel_statistics(spec, frames)
        query = torch.zeros(len(labels), dtype=torch.bool)
        query[:: round(1 / held_out)] = True  # as in the recipe's hold_out
        gallery = features[~query], labels[~query]
        return knn_probe(*gallery, features[query], labels[query]).value


def encoder_features(encoder: nn.Module) -> Features:
    """Return a function that concatenates the mean patch token of every layer."""

    @torch.no_grad()
    def features(spec: Tensor, frames: Tensor) -> Tensor:
        parts = []
        for chunk in tqdm(spec.split(50), "  encoding", leave=False, disable=None):
            with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
                layers = encoder(chunk, return_layers=True).layers
            means = [layer[:, 1:].float().mean(dim=1) for layer in layers]
            parts.append(torch.cat(means, dim=1))
        return torch.cat(parts)

    return features


def untrained_encoder(config: dict, seed: int) -> EATEncoder:
    """Return an encoder with its initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EATEncoder(**config).eval()
