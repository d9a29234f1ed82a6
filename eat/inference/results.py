"""What a model returns for a recording: features with times, tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
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
