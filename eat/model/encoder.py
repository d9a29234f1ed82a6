"""The EAT encoder: patch embedding, CLS token, layer norm, post-norm blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.model.patching import (
    PATCH,
    PatchEmbedding,
    grid_of,
    sincos_positions,
    valid_patches,
)
from eat.model.transformer import NORM_EPS, PostNormBlock, init_bert_weights

# Base and large are the paper's; small has the size of ViT-S, tiny and micro train in
# minutes on two CPU cores.
PRESETS: dict[str, dict[str, Any]] = {
    "micro": {"dim": 64, "depth": 4, "num_heads": 2},
    "tiny": {"dim": 128, "depth": 4, "num_heads": 2},
    "small": {"dim": 384, "depth": 12, "num_heads": 6},
    "base": {"dim": 768, "depth": 12, "num_heads": 12},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16},
}


@dataclass
class EncoderOutput:
    """Output of the encoder.

    Attributes
    ----------
    cls
        CLS token of the last block `[B, D]`.
    patches
        Patch tokens of the last block `[B, N, D]`, or `[B, V, D]` if only the visible
        ones were encoded.
    layers
        If requested, the output of each block `[B, N+1, D]`, CLS token first.
    ffn_outputs
        If requested, the feed-forward output of each block `[B, N+1, D]`, CLS token
        first.
    valid
        If the clips' numbers of frames were given, which patches `[B, N]` are not
        padding. The outputs at the padding mean nothing.
    """

    cls: Tensor
    patches: Tensor
    layers: list[Tensor] = field(default_factory=list)
    ffn_outputs: list[Tensor] = field(default_factory=list)
    valid: Tensor | None = None


class EATEncoder(nn.Module):
    """Vision-transformer encoder over log-mel patches (paper section 3.1).

    Parameters
    ----------
    dim, depth, num_heads
        Width D, number of blocks, attention heads per block.
    drop_path
        Stochastic-depth rate of the last block; it grows linearly from 0 at the first.
    max_frames
        Largest number of input frames; sets the number of positions.
    num_mels
        Number of mel bins F.
    position_scale
        Factor of the fixed positions. 1 is EAT. Small models need a smaller one, since
        they would otherwise predict the targets from the positions alone.
    bf16_residual
        Under autocast to bf16, keep the tokens between the layers in bf16 too. In fp32
        they take more time and memory.
    """

    positions: Tensor

    def __init__(
        self,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        drop_path: float = 0.0,
        max_frames: int = 12288,
        num_mels: int = 128,
        position_scale: float = 1.0,
        bf16_residual: bool = True,
    ) -> None:
        super().__init__()
        self.config = {
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "max_frames": max_frames,
            "num_mels": num_mels,
            "position_scale": position_scale,
        }
        self.dim = dim
        self.bf16_residual = bf16_residual
        self.patch_embedding = PatchEmbedding(dim)
        positions = sincos_positions(dim, (max_frames // PATCH, num_mels // PATCH))
        # Fixed and recomputed, so not part of a checkpoint.
        self.register_buffer("positions", positions * position_scale, persistent=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        # On the CPU, for a model that is built on the meta device.
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            PostNormBlock(dim, num_heads, rate) for rate in rates
        )
        self.blocks.apply(init_bert_weights)

    @classmethod
    def from_preset(cls, preset: str, **options: Any) -> EATEncoder:
        """Build an encoder of size tiny, small, base or large.

        Raises
        ------
        ValueError
            If the preset does not exist.
        """
        if preset not in PRESETS:
            raise ValueError(f"encoder preset '{preset}': choose from {list(PRESETS)}")
        return cls(**PRESETS[preset], **options)

    @property
    def token_dtype(self) -> torch.dtype:
        """The type of the tokens between the layers, under the current autocast."""
        device = self.cls_token.device.type
        if self.bf16_residual and torch.is_autocast_enabled(device):
            if torch.get_autocast_dtype(device) is torch.bfloat16:
                return torch.bfloat16
        return self.cls_token.dtype

    def forward(
        self,
        spec: Tensor,
        return_layers: bool = False,
        return_ffn: bool = False,
        valid_frames: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode full clips.

        Parameters
        ----------
        spec
            Normalized log-mel `[B, T, F]`, T a multiple of 16.
        return_layers, return_ffn
            Also return the outputs / feed-forward outputs of all blocks.
        valid_frames
            Frames of each clip before its padding `[B]`. The padding is then masked:
            the result is that of each clip alone, of its frames rounded up to a
            multiple of 16. By default it is encoded too, as in the official code.
        """
        valid = None
        if valid_frames is not None:
            if valid_frames.is_floating_point() or valid_frames.shape != spec.shape[:1]:
                raise ValueError(
                    f"valid_frames: expected integers [{len(spec)}], got "
                    f"{valid_frames.dtype} {list(valid_frames.shape)} (for lengths in "
                    "samples: LogMel.valid_frames)"
                )
            valid = valid_patches(valid_frames, grid_of(*spec.shape[1:]))
        return self.encode(self.embed(spec), return_layers, return_ffn, valid)

    def embed(self, spec: Tensor) -> Tensor:
        """Embed log-mel `[B, T, F]` as patch tokens with positions `[B, N, D]`."""
        patches = self.patch_embedding(spec)
        num_patches = patches.shape[1]
        if num_patches > len(self.positions):
            raise ValueError(
                f"spectrogram of {spec.shape[1]} frames: the encoder supports up to "
                f"{self.config['max_frames']} (cut the clip or increase max_frames)"
            )
        return patches + self.positions[:num_patches]

    def encode(
        self,
        patches: Tensor,
        return_layers: bool = False,
        return_ffn: bool = False,
        valid: Tensor | None = None,
    ) -> EncoderOutput:
        """Apply layer norm and blocks to the CLS token and patch tokens `[B, V, D]`.

        No token attends to patches that are not `valid` `[B, V]`.
        """
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)
        x = self.norm(torch.cat([cls_token.to(patches.dtype), patches], dim=1))
        x = x.to(self.token_dtype)
        keys = None if valid is None else F.pad(valid, (1, 0), value=True)
        layers, ffn_outputs = [], []
        for block in self.blocks:
            x, ffn_output = block(x, keys)
            if return_layers:
                layers.append(x)
            if return_ffn:
                ffn_outputs.append(ffn_output)
        return EncoderOutput(x[:, 0], x[:, 1:], layers, ffn_outputs, valid)
