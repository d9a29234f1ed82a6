"""Features: what to take from the encoder's tokens, and what a model returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eat.inference.options import choose
from eat.model.classifier import mean_pool
from eat.model.encoder import EATEncoder, EncoderOutput
from eat.model.patching import PATCH

if TYPE_CHECKING:
    import pandas as pd

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
        pooling = "cls" if pooling is None else pooling
        choose("pooling", pooling, POOLINGS)
        depth = len(encoder.blocks)
        listed: Any = layers
        if isinstance(layers, str):
            listed = range(depth) if layers == "all" else ()
        axis = isinstance(listed, Sequence | np.ndarray)
        numbers = [*listed] if axis else [listed]
        if not numbers or not all(
            isinstance(number, Integral) and -depth <= int(number) < depth
            for number in numbers
        ):
            raise ValueError(
                f"layers {layers!r}: must be an index from {-depth} to {depth - 1}, a "
                "list of them, or 'all'"
            )
        bands = int(encoder.config["num_mels"]) // PATCH
        chosen = tuple(int(number) % depth for number in numbers)
        return cls(granularity, pooling, chosen, axis, depth, bands)

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


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a recording, fp32 on the CPU.

    Attributes
    ----------
    values
        `[D]` of the clip, or `[T, D]` of its frames or patches; with several layers,
        `[L, D]` or `[L, T, D]`.
    times
        Start and end of each row in seconds, `[T, 2]`, float64; `[1, 2]` for a clip.
    layers
        The layers (blocks) that the values are from, counted from 0.
    path
        The file.
    """

    values: Tensor
    times: Tensor
    layers: tuple[int, ...]
    path: Path

    def numpy(self) -> np.ndarray:
        """Return the values as an array."""
        return self.values.numpy()

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for each layer and time: layer, start, end, f0 to f(D-1)."""
        import pandas as pd

        rows, layers = len(self.times), len(self.layers)
        table = self.numpy().reshape(layers * rows, -1)
        names = [f"f{number}" for number in range(table.shape[1])]
        start, end = np.tile(self.times.numpy(), (layers, 1)).T
        keys = {"layer": np.repeat(self.layers, rows), "start": start, "end": end}
        values = pd.DataFrame(table, columns=names)
        return pd.concat([pd.DataFrame(keys), values], axis=1)


class Tag(NamedTuple):
    """A class found in a recording, from start to end in seconds.

    The label is the class name, or its number if the model has no names.
    """

    label: str
    score: float
    start: float
    end: float
