"""Which clips make up an epoch: a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def _permutation(num_items: int, seed: int, number: int) -> Tensor:
    """Return the permutation `[num_items]` with this number in the seed's sequence."""
    # SeedSequence mixes the pair, so that (0, 1) and (1, 0) have nothing in common.
    mixed = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(mixed[0]))
    return torch.randperm(num_items, generator=generator)


class EpochSampler(Sampler[int]):
    """Epochs of any size, walking on through successive shuffles of the corpus.

    The shuffles of the corpus, one after the other, form an endless sequence; epoch e
    is its e-th stretch of `epoch_size` indices. So an epoch may be shorter or longer
    than the corpus, every clip is seen equally often (the counts never differ by more
    than one), and nothing has to be saved to resume.

    Parameters
    ----------
    num_items : int
        Clips of the corpus.
    epoch_size : int
        Clips of an epoch.
    seed : int
        Seed of all shuffles, not negative.
    """

    def __init__(self, num_items: int, epoch_size: int, seed: int) -> None:
        self.num_items = num_items
        self.epoch_size = epoch_size
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; SpeechBrain calls it, counting from 1.

        Parameters
        ----------
        epoch : int
            Number of the epoch, 1 or more.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch_size

    def __iter__(self) -> Iterator[int]:
        position = (self.epoch - 1) * self.epoch_size
        end = position + self.epoch_size
        while position < end:
            number, offset = divmod(position, self.num_items)
            count = min(self.num_items - offset, end - position)
            order = _permutation(self.num_items, self.seed, number)
            yield from order[offset : offset + count].tolist()
            position += count
