"""What the CLS token attends to: attention maps of an encoder on a spectrogram."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of
from eat.model.transformer import PostNormBlock


@torch.no_grad()
def cls_attention(encoder: EATEncoder, spec: Tensor, block: int = -1) -> Tensor:
    """Return how the CLS token of a block distributes its attention over the patches.

    Parameters
    ----------
    encoder
        The encoder of a student, a teacher or a classifier, in evaluation mode.
    spec
        Normalized log-mel `[B, T, F]`.
    block
        Index of the block, negative from the end.

    Returns
    -------
    Tensor
        `[B, heads, T / 16, F / 16]`; each map sums to 1 less the attention of the CLS
        token to itself.
    """
    attention = cast(PostNormBlock, encoder.blocks[block]).attn
    projected: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        """Keep queries, keys and values `[B, N + 1, 3 D]`."""
        projected.append(output)

    handle = attention.qkv.register_forward_hook(keep)
    try:
        encoder(spec)
    finally:
        handle.remove()
    batch, tokens, _ = projected[0].shape
    parts = projected[0].view(batch, tokens, 3, attention.num_heads, -1)
    query, key, _ = parts.permute(2, 0, 3, 1, 4)
    scores = query[:, :, :1] @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    weights = scores.softmax(-1)[:, :, 0, 1:]
    return weights.unflatten(2, grid_of(*spec.shape[1:]))
