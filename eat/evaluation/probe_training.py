"""Training of the probes of tokens: AdamW, hyper-parameters from held-out clips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from eat.evaluation.probing import (
    ProbeResult,
    clip_losses,
    lowest_loss,
    split_rows,
)
from eat.evaluation.token_probes import AttentivePooling, ConvexGatedProbe, ProtoBin

TOKEN_PROBES: dict[str, type[nn.Module]] = {
    "attentive": AttentivePooling,
    "protobin": ProtoBin,
    "cgp": ConvexGatedProbe,
}
LEARNING_RATES = (0.01, 0.1)
WEIGHT_DECAYS = (0.01, 0.1)
EPOCHS = 20
BATCH = 48
WARMUP = 0.1


class TokenRows(Protocol):
    """The tokens of a layer: an array, or what is indexed as one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(M, N+1, D)``."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the tokens of some clips."""


Layers = Sequence[TokenRows]


def token_probe(
    kind: str,
    train_x: Layers,
    train_y: Tensor,
    test_x: Layers,
    test_y: Tensor,
    *,
    seed: int = 0,
    multi_label: bool = True,
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Train a probe of tokens and evaluate it.

    A random fifth of the training clips selects learning rate and weight decay by the
    cross-entropy; then all are fitted. Deterministic in the seed on one machine.

    Parameters
    ----------
    kind
        A key of `TOKEN_PROBES`.
    train_x, test_x
        Tokens of each layer, `[M, N+1, D]`, CLS token first; arrays in memory or mapped
        from files. Attentive pooling and ProtoBin use the last one only.
    train_y, test_y
        Multi-hot labels `[M, C]`.
    seed
        Of the held-out clips, the initial weights, the order of clips and the dropout.
    multi_label
        Whether a clip may have several labels: mAP instead of accuracy.
    device
        Device to train on.
    """
    if kind not in TOKEN_PROBES:
        raise ValueError(f"kind '{kind}': choose from {list(TOKEN_PROBES)}")
    fitted, held_out = split_rows(len(train_y), seed)
    train = _Training(kind, train_x, train_y.float(), seed, multi_label, device)
    grid = list(product(LEARNING_RATES, WEIGHT_DECAYS))
    losses = []
    for lr, decay in grid:
        logits = train.scores(train.fit(fitted, lr, decay), train_x, held_out)
        losses.append(
            clip_losses(logits, train_y[held_out].float(), multi_label).mean()
        )
    lr, decay = grid[lowest_loss(torch.stack(losses))]
    probe = train.fit(torch.arange(len(train_y)), lr, decay)
    scores = train.scores(probe, test_x, torch.arange(len(test_y)))
    return ProbeResult.evaluate(scores, test_y, multi_label, lr=lr, weight_decay=decay)


class _Training:
    """The training clips of a probe, and how it is trained."""

    def __init__(
        self,
        kind: str,
        layers: Layers,
        labels: Tensor,
        seed: int,
        multi_label: bool,
        device: str | torch.device,
    ) -> None:
        self.kind, self.layers, self.labels = kind, layers, labels
        self.seed, self.multi_label, self.device = seed, multi_label, device

    def fit(self, rows: Tensor, lr: float, weight_decay: float) -> nn.Module:
        """Train on some clips; learning rate by warm-up and cosine."""
        sizes = len(self.layers), self.layers[0].shape[-1], self.labels.shape[1]
        steps = EPOCHS * -(-len(rows) // BATCH)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            probe = TOKEN_PROBES[self.kind](*sizes).to(self.device)
            optimizer = torch.optim.AdamW(
                probe.parameters(), lr, weight_decay=weight_decay
            )
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, lr, steps, pct_start=WARMUP, cycle_momentum=False
            )
            what = f"  {self.kind}, lr {lr:g}, decay {weight_decay:g}"
            with tqdm(None, what, steps, False, disable=None) as bar:
                for _ in range(EPOCHS):
                    for batch in rows[torch.randperm(len(rows))].split(BATCH):
                        logits = probe(self._tokens(self.layers, batch))
                        labels = self.labels[batch].to(self.device)
                        loss = clip_losses(logits, labels, self.multi_label).mean()
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        schedule.step()
                        bar.update()
        return probe.eval()

    @torch.no_grad()
    def scores(self, probe: nn.Module, layers: Layers, rows: Tensor) -> Tensor:
        """Return the logits `[M, C]` of some clips."""
        batches = rows.split(BATCH)
        return torch.cat([probe(self._tokens(layers, b)).cpu() for b in batches])

    def _tokens(self, layers: Layers, rows: Tensor) -> Tensor:
        """Return tokens `[B, L, N+1, D]` of some clips."""
        chosen = np.stack([layer[rows.numpy()] for layer in layers], axis=1)
        return torch.from_numpy(chosen).to(self.device).float()
