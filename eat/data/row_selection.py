"""Rows of a manifest, chosen by a rule instead of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np


@dataclass(frozen=True)
class EveryNth:
    """Rows 0, n, 2n ... of `total`; with `others`, all rows but those (n > 1)."""

    total: int
    n: int = 1
    others: bool = False

    def __len__(self) -> int:
        count = -(-self.total // self.n)
        return self.total - count if self.others else count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: np.ndarray) -> np.ndarray: ...

    def __getitem__(self, index: int | np.ndarray) -> int | np.ndarray:
        """Return a row, or the rows `[M]` of indices `[M]`, which are not checked."""
        if not isinstance(index, np.ndarray):
            index = range(len(self))[index]
        if self.others:
            return index + index // (self.n - 1) + 1
        return index * self.n
