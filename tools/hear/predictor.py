"""The shallow predictors that HEAR trains on frozen embeddings.

The grid and its settings are those of `heareval`: one or two hidden layers of 1024,
batch normalization, dropout 0.1, Adam, four learning rates, two initializations, at
most 500 epochs, early stopping by the task's score on the validation split.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from hear.scores import TaskScore
from hear.tasks import Clips

HIDDEN = 1024
DROPOUT = 0.1
BATCH = 1024
MAX_EPOCHS = 500
EPOCHS_PER_CHECK = 3
PATIENCE = 20  # checks


class Settings(NamedTuple):
    """One point of the grid."""

    hidden_layers: int
    lr: float
    init: Callable[..., Tensor]

    def __str__(self) -> str:
        return f"{self.hidden_layers} hidden layers, lr {self.lr}, {self.init.__name__}"


GRID = [
    Settings(*point)
    for point in product(
        (1, 2),
        (3.2e-3, 1e-3, 3.2e-4, 1e-4),
        (nn.init.xavier_uniform_, nn.init.xavier_normal_),
    )
]


@dataclass
class Fitted:
    """The predictor of the best check, and its score on the validation split."""

    network: nn.Module
    score: float
    variant: tuple[float, float]  # of the post-processing


def sample_grid(points: int, seed: int) -> list[Settings]:
    """Return random points of the grid."""
    return random.Random(seed).sample(GRID, min(points, len(GRID)))


def build(width: int, classes: int, settings: Settings) -> nn.Sequential:
    """Build an untrained predictor from embeddings `[M, D]` to logits `[M, C]`."""
    layers: list[nn.Module] = []
    gain = 1.0
    for _ in range(settings.hidden_layers):
        linear = nn.Linear(width, HIDDEN)
        settings.init(linear.weight, gain=gain)
        norm = nn.BatchNorm1d(HIDDEN)
        layers += [linear, norm, nn.Dropout(DROPOUT), nn.ReLU()]
        width, gain = HIDDEN, nn.init.calculate_gain("relu")
    layers.append(nn.Linear(width, classes))
    settings.init(layers[-1].weight, gain=gain)
    return nn.Sequential(*layers)


@torch.no_grad()
def predict(network: nn.Module, x: Tensor) -> Tensor:
    """Return logits `[M, C]` on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network(part.to(device)).cpu() for part in x.split(8 * BATCH)])


def fit(
    train: Clips,
    valid: Clips,
    settings: Settings,
    score: TaskScore,
    multi_label: bool,
    device: torch.device,
    seed: int,
    max_epochs: int = MAX_EPOCHS,
) -> Fitted:
    """Train a predictor and return it as it was when the validation score was best."""
    torch.manual_seed(seed)
    network = build(train.x.shape[1], train.y.shape[1], settings).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr)
    best = Fitted(network, float("-inf"), score.variants[0])
    checks = 0  # since the best one
    for epoch in tqdm(
        range(1, max_epochs + 1), str(settings), leave=False, disable=None
    ):
        network.train()
        for rows in torch.randperm(len(train.x)).split(BATCH):
            if len(rows) == 1:
                continue  # batch normalization needs two
            logits, y = network(train.x[rows].to(device)), train.y[rows].to(device)
            if multi_label:
                loss = F.binary_cross_entropy_with_logits(logits, y)
            else:
                loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % EPOCHS_PER_CHECK and epoch < max_epochs:
            continue
        logits = predict(network, valid.x)
        value, variant = max((score(logits, valid, v), v) for v in score.variants)
        checks += 1
        if value > best.score:
            best, checks = Fitted(deepcopy(network), value, variant), 0
        if checks >= PATIENCE:
            break
    return best
