"""The lightweight 2-D CNN decoder of the masked patches (paper section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-5  # torch's default; the transformer's norms use 1e-6


class CNNDecoder(nn.Module):
    """Grouped 3 x 3 convolutions over the patch grid, with residual connections.

    All tensors are in channels-last memory, so that the layer norms act on the last
    dimension and nothing is transposed.

    Parameters
    ----------
    dim
        Width D of every layer.
    depth
        Number of convolutions.
    kernel
        Kernel size, odd.
    groups
        Number of convolution groups, a divisor of D and of the encoder's width.
    input_dim
        Width of the encoder, from which the first layer and to which :attr:`proj` maps;
        by default D, as in EAT.
    output_dim
        Width to which :attr:`proj` maps instead: of targets that are not the teacher's
        features, such as the 256 values of a patch.
    """

    def __init__(
        self,
        dim: int = 768,
        depth: int = 6,
        kernel: int = 3,
        groups: int = 16,
        input_dim: int | None = None,
        output_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "dim": dim,
            "depth": depth,
            "kernel": kernel,
            "groups": groups,
            "input_dim": input_dim,
            "output_dim": output_dim,
        }
        outer = dim if input_dim is None else input_dim
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, dim, kernel, padding=kernel // 2, groups=groups)
            for width in [outer, *[dim] * (depth - 1)]
        )
        self.proj = nn.Linear(dim, outer if output_dim is None else output_dim)

    def forward(self, grid: Tensor) -> Tensor:
        """Decode a (time, frequency) grid of patches to `[B, H, W, D]`.

        The patches `[B, H, W, D']` have the encoder's width D'. A layer that changes
        the width has no residual connection.

        The caller applies :attr:`proj`, to the masked patches only: the others do not
        enter the loss.
        """
        x = grid
        for convolution in self.convolutions:
            # A permuted view of [B, H, W, D] memory is NCHW in channels-last format.
            y = convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            # Recomputed in the backward pass: the norm takes little time but memory.
            y = checkpoint(_normalize, y, use_reentrant=False, preserve_rng_state=False)
            x = x + y if x.shape == y.shape else y
        return x


def _normalize(y: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(y, y.shape[-1:], eps=NORM_EPS).to(y.dtype))
