"""A pseudo-random permutation whose values are computed one by one, not stored."""

from __future__ import annotations

import math

import numpy as np

from eat.utils.random import FACTORS, GOLDEN

ROUNDS = 16  # fewer mix small corpora less evenly
_GOLDEN, *_FACTORS = np.array([GOLDEN, *FACTORS]).view(np.uint64)


def random_keys(count: int, *numbers: int) -> np.ndarray:
    """Return keys of some numbers: `[count]` uint64, unrelated to their neighbors."""
    return np.random.SeedSequence(numbers).generate_state(count, np.uint64)


def random_bits(key: np.uint64, counters: np.ndarray) -> np.ndarray:
    """Return 64 random bits for each counter, by SplitMix64 (Steele et al., 2014).

    Counters and bits are uint64 arrays of the same shape.
    """
    bits = counters * _GOLDEN
    bits += key
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        bits ^= bits >> np.uint64(shift)
        bits *= factor
    bits ^= bits >> np.uint64(31)
    return bits


class Permutation:
    """A pseudo-random permutation of 0, 1 ... `size` - 1, in constant memory.

    A Feistel network permutes the cells of a table that is at least as large; a value
    outside the range is permuted again until it is inside (cycle walking). See Black
    and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002.

    Parameters
    ----------
    size
        Number of elements, from 1 to 2^62.
    numbers
        What the permutation is a function of, such as a seed and an epoch.
    """

    def __init__(self, size: int, *numbers: int) -> None:
        self.size = size
        rows = math.isqrt(size - 1) + 1
        self.shape = rows, -(-size // rows)
        self.keys = random_keys(ROUNDS, *numbers)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """Return the elements at positions `[M]`, as `[M]` int64."""
        found = self._permute(positions.astype(np.uint64))
        outside = np.flatnonzero(found >= self.size)
        while len(outside):
            found[outside] = self._permute(found[outside])
            outside = outside[found[outside] >= self.size]
        return found.astype(np.int64)

    def _permute(self, cells: np.ndarray) -> np.ndarray:
        """Return where the network takes cells of the table."""
        rows, columns = map(np.uint64, self.shape)
        left, right = np.divmod(cells, columns)
        for key in self.keys:
            # Scales the upper 32 bits to 0 ... rows - 1.
            left += ((random_bits(key, right) >> np.uint64(32)) * rows) >> np.uint64(32)
            np.subtract(left, rows, out=left, where=left >= rows)
            left, right, rows, columns = right, left, columns, rows
        return left * columns + right
