"""Probes of all tokens of frozen layers: attentive pooling and prototypes.

A module maps the tokens `[B, L, N+1, D]` of L layers, CLS token first, to logits
`[B, C]`. Published probes are trained with an asymmetric loss for a fixed number of
steps at one learning rate; all of these are trained by `eat.evaluation.probe_training`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUERIES = 4
PROTOTYPES_PER_CLASS = 20
DROPOUT = 0.2


class AttentivePooling(nn.Module):
    """Learned queries attend to the tokens of a layer; a linear layer classifies.

    The recipe is that of efficient probing (Psomas et al. 2025, arXiv 2506.10178): each
    query is compared with the tokens themselves, without projections of queries and
    keys. Ours are the few queries, and the omitted projection of the values: each query
    pools all channels, and the linear layer is given all of them. Tokens are normalized
    without learned parameters.
    """

    def __init__(self, layers: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(QUERIES, dim))
        self.classifier = nn.Linear(QUERIES * dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        x = F.layer_norm(tokens[:, -1], tokens.shape[-1:])
        pooled = F.scaled_dot_product_attention(
            self.queries.expand(len(x), -1, -1), x, x
        )
        return self.classifier(pooled.flatten(1))


class ProtoBin(nn.Module):
    """Binarized prototypes: the best cosine with any patch token of a layer, each.

    Rauch et al. (2026, "Unmute the patch tokens", arXiv 2509.24901), as in the code
    that was published with BAT: prototypes belong to no class, their signs are taken
    with a straight-through gradient, dropout and a linear layer follow. The number of
    prototypes per class is close to theirs, 10,000 for the 527 classes of AudioSet.
    """

    def __init__(self, layers: int, dim: int, num_classes: int) -> None:
        super().__init__()
        count = PROTOTYPES_PER_CLASS * num_classes
        self.prototypes = nn.Parameter(0.02 * torch.randn(count, dim))
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(count, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        patches = F.normalize(tokens[:, -1, 1:], dim=-1)
        signs = torch.where(self.prototypes.detach() < 0, -1.0, 1.0)
        binary = signs + self.prototypes - self.prototypes.detach()
        (best,) = extremes(patches, F.normalize(binary, dim=-1), torch.argmax)
        return self.classifier(self.dropout(best))


class ConvexGatedProbe(nn.Module):
    """Prototypes on a convex combination of layers (CGP).

    Ghaffari et al. (2026, arXiv 2602.16305), as in their code: tokens of unit length,
    averaged over the layers with learned softmax weights; of the inner products with
    prototypes of unit length the smallest and the largest over the patches, and that of
    the CLS token; dropout and a linear layer. Ours is the number of prototypes, as in
    `ProtoBin`, instead of 10,000.
    """

    def __init__(self, layers: int, dim: int, num_classes: int) -> None:
        super().__init__()
        count = PROTOTYPES_PER_CLASS * num_classes
        self.gate = nn.Parameter(torch.zeros(layers))
        self.prototypes = nn.Parameter(0.02 * torch.randn(count, dim))
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(3 * count, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        unit = F.normalize(tokens, dim=-1)
        x = torch.einsum("l,blnd->bnd", self.gate.softmax(dim=0), unit)
        prototypes = F.normalize(self.prototypes, dim=-1)
        pooled = extremes(x[:, 1:], prototypes, torch.argmin, torch.argmax)
        similar = torch.cat([*pooled, x[:, 0] @ prototypes.T], dim=1)
        return self.classifier(self.dropout(similar))


def extremes(
    tokens: Tensor, prototypes: Tensor, *choices: Callable[..., Tensor]
) -> list[Tensor]:
    """Return the largest or smallest inner products over tokens, `[B, P]` each.

    The gradient is that of ``(tokens @ prototypes.T).amax(1)``, at a third of the cost:
    only the chosen tokens take part in it.

    Parameters
    ----------
    tokens
        `[B, N, D]`.
    prototypes
        `[P, D]`.
    choices
        `torch.argmax`, `torch.argmin`.
    """
    with torch.no_grad():
        similar = tokens @ prototypes.T
        places = [choose(similar, dim=1)[..., None] for choose in choices]
    chosen = (tokens.gather(1, p.expand(-1, -1, tokens.shape[2])) for p in places)
    return [torch.einsum("bpd,pd->bp", own, prototypes) for own in chosen]
