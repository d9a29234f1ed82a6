"""The post-norm transformer block of EAT, taken from data2vec 2.0, and its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
SCORES = 2**23  # bytes of attention scores at a time


class Attention(nn.Module):
    """Multi-head self-attention.

    Parameters
    ----------
    dim
        Width D.
    num_heads
        Number of heads, a divisor of D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Apply self-attention to tokens `[B, N, D]`, or only to the valid `[B, N]`."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None if valid is None else valid[:, None, None]  # of keys
        if x.device.type == "cpu" and query.dtype is torch.bfloat16:
            mixed = explicit_attention(query, key, value, mask)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, mask)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Compute softmax attention without a fused kernel, `[B, heads, N, D/heads]` each.

    With bf16 instructions of the CPU it is faster than the fused kernel at EAT's
    lengths. It is computed in pieces of the batch whose scores fit the cache. Where a
    boolean `mask` `[B, 1, 1, N]` is False, no query attends to that key.
    """
    heads, tokens = query.shape[1:3]
    clips = max(1, SCORES // (heads * tokens**2 * query.element_size()))
    if clips >= len(query):
        return _attend(query, key, value, mask)
    parts = [tensor.split(clips) for tensor in (query, key, value)]
    masks = [None] * len(parts[0]) if mask is None else mask.split(clips)
    return torch.cat([_attend(*part) for part in zip(*parts, masks, strict=True)])


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value  # computed in fp32 within the kernel


class FeedForward(nn.Module):
    """Two linear layers with an exact (erf) GELU and a hidden width of 4 D.

    The output of the GELU, a sixth of what a block would keep for the backward pass, is
    computed again there.

    Parameters
    ----------
    dim
        Width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of `[..., D]`."""
        hidden = self.fc1(x)
        if not hidden.requires_grad or torch.compiler.is_compiling():
            return self.fc2(F.gelu(hidden))
        with _recomputed(F.gelu, hidden) as activated:
            return self.fc2(activated)


@contextmanager
def _recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[Tensor]:
    """Return ``function(x)``, which what is computed in this context does not keep.

    Its backward pass calls `function` again, as does :mod:`torch.utils.checkpoint`,
    which would also convert the weights to the type of autocast again.
    """
    y = function(x)
    source, place = x.detach(), y.data_ptr()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        """Keep only the shape of `y` and its views."""
        return saved.shape if saved.data_ptr() == place else saved

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        """Compute `y` again, in the shape that was saved."""
        if isinstance(packed, Tensor):
            return packed
        return function(source).view(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield y


class DropPath(nn.Module):
    """Drop a residual branch for whole samples while training (stochastic depth).

    Parameters
    ----------
    rate
        Probability of dropping; kept branches are scaled by ``1 / (1 - rate)``.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of `[B, N, D]`."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = x.new_empty(x.shape[0], 1, 1).bernoulli_(keep)
        return x * (kept / keep)


class PostNormBlock(nn.Module):
    """Transformer block with layer norms after the residual sums.

    It also returns the output of its feed-forward branch before the residual sum, which
    EAT's teacher averages over the blocks into targets.

    Parameters
    ----------
    dim
        Width D.
    num_heads
        Number of attention heads.
    drop_path
        Stochastic-depth rate of both residual branches.
    """

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = FeedForward(dim)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the block's output and its feed-forward output for `[B, N, D]`.

        No token attends to those that are not `valid` `[B, N]`.
        """
        # On a GPU, autocast makes the norms return fp32.
        x = self.norm1(x + self.drop_path(self.attn(x, valid))).to(x.dtype)
        ffn_output = self.mlp(x)
        return self.norm2(x + self.drop_path(ffn_output)).to(x.dtype), ffn_output


def init_bert_weights(module: nn.Module) -> None:
    """Initialize linear layers from N(0, 0.02), biases with 0, as the official code.

    Use as ``model.apply(init_bert_weights)``; layer norms keep torch's ones and zeros.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
