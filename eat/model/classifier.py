"""EAT with a classification head, for fine-tuning (paper section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.transformer import NORM_EPS

POOLINGS = ("cls", "mean", "linear_softmax")


class EATClassifier(nn.Module):
    """Encoder, pooling, layer norm and one linear layer.

    Parameters
    ----------
    encoder
        The encoder to fine-tune.
    num_classes
        Number of classes C.
    pooling
        ``cls``: the CLS token (the paper's choice). ``mean``: the mean of the patch
        tokens. ``linear_softmax``: see :func:`linear_softmax`.
    mask_padding
        Whether it is trained with the clips' padding masked, for those who use it:
        :meth:`forward` masks what it is told to.
    """

    def __init__(
        self,
        encoder: EATEncoder,
        num_classes: int,
        pooling: str = "cls",
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling '{pooling}': choose from {list(POOLINGS)}")
        self.config = {
            "encoder": encoder.config,
            "num_classes": num_classes,
            "pooling": pooling,
            "mask_padding": mask_padding,
        }
        self.encoder = encoder
        self.pooling = pooling
        self.mask_padding = mask_padding
        self.norm = nn.LayerNorm(encoder.dim, eps=NORM_EPS)
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, spec: Tensor, valid_frames: Tensor | None = None) -> Tensor:
        """Classify normalized log-mel `[B, T, F]`: logits `[B, C]`.

        Given `valid_frames` `[B]`, without padding, see `EATEncoder.forward`.
        """
        return self.classify(self.encoder(spec, valid_frames=valid_frames))

    def classify(self, encoded: EncoderOutput) -> Tensor:
        """Pool and classify encoder output: logits `[B, C]`.

        In evaluation not in bf16, in which many clips would have the same logit.
        """
        pooled = self.norm(self.pool(encoded).to(self.norm.weight.dtype))
        if self.training or not torch.is_autocast_enabled(pooled.device.type):
            return self.head(pooled)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled.to(self.head.weight.dtype))

    def pool(self, encoded: EncoderOutput) -> Tensor:
        """Pool the tokens to one vector for each clip `[B, D]`."""
        if self.pooling == "cls":
            return encoded.cls
        if self.pooling == "mean":
            return mean_pool(encoded.patches, encoded.valid)
        return linear_softmax(encoded.patches, encoded.valid)


def mean_pool(patches: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean `[B, D]` of patches `[B, N, D]`, or of the `valid` `[B, N]`."""
    if valid is None:
        return patches.mean(dim=1, dtype=torch.float32)
    total = patches.masked_fill(~valid[..., None], 0.0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True)


def linear_softmax(patches: Tensor, valid: Tensor | None = None) -> Tensor:
    """Pool `[B, N, D]` to `[B, D]`, each channel weighted by its own sigmoid.

    The pooled value is the logit of ``sum(p^2) / sum(p)`` with ``p = sigmoid(patches)``
    (Wang et al., 2019). The small constant, taken from the official code, keeps the
    probability below 1. Only `valid` patches `[B, N]` count, if given.
    """
    log_p = F.logsigmoid(patches.float())
    if valid is not None:
        log_p = log_p.masked_fill(~valid[..., None], -torch.inf)
    pooled = torch.logsumexp(2 * log_p, dim=1) - torch.logsumexp(log_p + 1e-6, dim=1)
    pooled = pooled - torch.log(-torch.expm1(pooled))
    return pooled.to(patches.dtype)
