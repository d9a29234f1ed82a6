"""The lightweight 2-D CNN decoder of the masked patches (paper section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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
        Number of convolution groups, a divisor of D.
    """

    def __init__(
        self, dim: int = 768, depth: int = 6, kernel: int = 3, groups: int = 16
    ) -> None:
        super().__init__()
        self.config = {"dim": dim, "depth": depth, "kernel": kernel, "groups": groups}
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=groups)
            for _ in range(depth)
        )
        self.proj = nn.Linear(dim, dim)

    def forward(self, grid: Tensor) -> Tensor:
        """Decode a (time, frequency) grid of patches `[B, H, W, D]` to the same shape.

        The caller applies :attr:`proj`, to the masked patches only: the others do not
        enter the loss.
        """
        x = grid
        for convolution in self.convolutions:
            # A permuted view of [B, H, W, D] memory is NCHW in channels-last format.
            y = convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = x + F.gelu(F.layer_norm(y, y.shape[-1:], eps=NORM_EPS))
        return x
