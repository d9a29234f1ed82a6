"""What to take from the encoder's tokens: layers, granularity, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eat.inference.options import choose
from eat.model.classifier import mean_pool
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import PATCH

GRANULARITIES = ("clip", "frames", "patches")
POOLINGS = ("cls", "mean", "both")


def pool(encoded: EncoderOutput, pooling: str) -> Tensor:
    """Reduce encoder output to one vector for each clip, `[B, D]` or `[B, 2D]`.

    ``cls`` is the CLS token, ``mean`` the mean of the patch tokens (including those of
    the padding unless it was masked, as in fine-tuning), ``both`` the two concatenated.
    """
    choose("pooling", pooling, POOLINGS)
    if pooling == "cls":
        return encoded.cls
    mean = mean_pool(encoded.patches, encoded.valid)
    return mean if pooling == "mean" else torch.cat([encoded.cls, mean], dim=1)


@dataclass(frozen=True)
class Readout:
    """How tokens become features.

    Attributes
    ----------
    granularity, pooling
        As in `AudioEncoder.encode_file`.
    layers
        Numbers of the blocks, from 0.
    layer_axis
        Whether the features have an axis of layers.
    depth
        Number of blocks.
    bands
        Number of patches of a frame.
    """

    granularity: str
    pooling: str
    layers: tuple[int, ...]
    layer_axis: bool
    depth: int
    bands: int

    @classmethod
    def check(
        cls,
        encoder: EATEncoder,
        granularity: str = "clip",
        pooling: str | None = None,
        layers: int | Sequence[int] | str = -1,
    ) -> Readout:
        """Check the options; raises `ValueError`, which names the wrong one."""
        choose("granularity", granularity, GRANULARITIES)
        if pooling is not None and granularity != "clip":
            raise ValueError(
                f"pooling '{pooling}': only for granularity 'clip', not '{granularity}'"
            )
        choose("pooling", pooling or "cls", POOLINGS)
        depth = len(encoder.blocks)
        listed = range(depth) if layers == "all" else layers
        numbers = [*listed] if isinstance(listed, Sequence) else [listed]
        if not numbers or not all(
            isinstance(layer, int) and -depth <= layer < depth for layer in numbers
        ):
            raise ValueError(
                f"layers {layers!r}: must be an index from {-depth} to {depth - 1}, a "
                "list of them, or 'all'"
            )
        bands = int(encoder.config["num_mels"]) // PATCH
        chosen = tuple(layer % depth for layer in numbers)
        axis = not isinstance(layers, int)
        return cls(granularity, pooling or "cls", chosen, axis, depth, bands)

    @property
    def only_last(self) -> bool:
        """Whether no block but the last is needed."""
        return set(self.layers) == {self.depth - 1}

    def __call__(self, encoded: EncoderOutput) -> Tensor:
        """Return clips `[B, L, D]`, frames `[B, L, T, D]`, patches `[B, L, T, 8, D]`.

        All layers must be in the encoder's output unless :attr:`only_last`.
        """
        results = []
        for layer in self.layers:
            cls, patches = encoded.cls, encoded.patches
            if encoded.layers:
                tokens = encoded.layers[layer]
                cls, patches = tokens[:, 0], tokens[:, 1:]
            results.append(self._reduce(cls.float(), patches.float(), encoded.valid))
        return torch.stack(results, dim=1)

    def _reduce(self, cls: Tensor, patches: Tensor, valid: Tensor | None) -> Tensor:
        if self.granularity == "clip":
            return pool(EncoderOutput(cls, patches, valid=valid), self.pooling)
        grid = patches.unflatten(1, (-1, self.bands))
        return grid.mean(dim=2) if self.granularity == "frames" else grid
