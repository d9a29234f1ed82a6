"""Which clips form an epoch: a pure function of (seed, epoch)."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from eat.errors import ManifestError

_CHUNK = 4096


def _generator(seed: int, number: int) -> torch.Generator:
    """Return generator number `number` of a seed."""
    # SeedSequence mixes the pair: the streams of (0, 1) and (1, 0) are unrelated.
    mixed = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


class _EpochSampler(Sampler[int]):
    """A sampler of `epoch_size` clips per epoch, which are numbered from 1."""

    def __init__(self, epoch_size: int, seed: int) -> None:
        self.epoch_size = epoch_size
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 1; SpeechBrain calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch_size


class EpochSampler(_EpochSampler):
    """Epochs of any size, taken from successive shuffles of the corpus.

    The shuffles of the corpus form an endless sequence; epoch e is its e-th segment of
    `epoch_size` indices. An epoch may therefore be shorter or longer than the corpus,
    all clips are seen equally often (counts differ by at most one), and resuming needs
    no saved state.

    Parameters
    ----------
    num_items
        Number of clips in the corpus.
    epoch_size
        Number of clips in an epoch.
    seed
        Random seed, not negative.
    """

    def __init__(self, num_items: int, epoch_size: int, seed: int) -> None:
        super().__init__(epoch_size, seed)
        self.num_items = num_items

    def __iter__(self) -> Iterator[int]:
        position = (self.epoch - 1) * self.epoch_size
        end = position + self.epoch_size
        while position < end:
            shuffle, offset = divmod(position, self.num_items)
            count = min(self.num_items - offset, end - position)
            generator = _generator(self.seed, shuffle)
            order = torch.randperm(self.num_items, generator=generator)
            # In chunks: two million Python integers need five times the memory.
            for chunk in order[offset : offset + count].split(_CHUNK):
                yield from chunk.tolist()
            position += count


def balancing_weights(labels: Iterable[Sequence[str]]) -> Tensor:
    """Return weights that make rare classes about as frequent as common ones.

    This is the rule of Audio-MAE's ``gen_weight.py``, which EAT's fine-tuning on
    AudioSet-2M uses: ``w = sum over the clip's labels of 1000 / (count + 0.01)``, where
    count is the number of clips with that label.

    Parameters
    ----------
    labels
        Labels of each of the M clips.

    Returns
    -------
    Tensor
        `[M]` float64; 0 for a clip without labels.
    """
    # Arrays, not the labels themselves: a manifest may have millions of clips.
    codes: dict[str, int] = {}
    flat, sizes = array("i"), array("i")
    for clip in labels:
        flat.extend(codes.setdefault(label, len(codes)) for label in clip)
        sizes.append(len(clip))
    classes = np.asarray(flat, np.int32)
    shares = 1000 / (np.bincount(classes, minlength=len(codes)) + 0.01)
    clips = np.repeat(np.arange(len(sizes)), sizes)
    return torch.from_numpy(np.bincount(clips, shares[classes], minlength=len(sizes)))


class WeightedSampler(_EpochSampler):
    """Epochs of distinct clips, drawn with probability proportional to weights.

    Epoch e draws `draws` clips without replacement and yields the first `epoch_size`.

    Parameters
    ----------
    weights
        `[M]`, not negative, at most 2^24 clips; clips of weight 0 are never drawn.
    draws
        Number of clips to draw for an epoch, 200,000 in the official code.
    epoch_size
        Number of clips in an epoch, at most `draws`: those that fill whole steps.
    seed
        Random seed, not negative.

    Raises
    ------
    ManifestError
        If `draws` is larger than the number of clips with a positive weight, or smaller
        than `epoch_size`.
    """

    def __init__(self, weights: Tensor, draws: int, epoch_size: int, seed: int) -> None:
        super().__init__(epoch_size, seed)
        possible = int((weights > 0).sum())
        if possible < draws:
            raise ManifestError(
                f"weighted sampling: cannot draw {draws} distinct clips, as only "
                f"{possible} have a positive weight (draw {possible} or fewer)"
            )
        if draws < epoch_size:
            raise ManifestError(
                f"weighted sampling: an epoch has {epoch_size} clips, but only {draws} "
                "are drawn (draw more or shorten the epoch)"
            )
        self.weights = weights
        self.draws = draws

    def __iter__(self) -> Iterator[int]:
        generator = _generator(self.seed, self.epoch)
        drawn = torch.multinomial(self.weights, self.draws, generator=generator)
        yield from drawn[: self.epoch_size].tolist()


class RankBatches(Sampler[list[int]]):
    """The batches of one rank, assigned to the ranks in turn.

    Batch m of the epoch goes to rank m modulo the world size: together, the ranks
    process in a step the batches that a single process would accumulate, with the same
    clips in each batch. Clips that do not fill a batch on every rank are dropped.

    Parameters
    ----------
    sampler
        The clips of an epoch, the same on all ranks.
    batch_size
        Number of clips in a batch.
    rank, world_size
        This rank, and the number of ranks.
    """

    def __init__(
        self,
        sampler: _EpochSampler,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self._start = 0

    def start_from(self, batch: int) -> None:
        """Skip this many of the rank's batches, in the next iteration only."""
        self._start = batch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 1; SpeechBrain calls this."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        clips, per_step = iter(self.sampler), self.batch_size * self.world_size
        batches, self._start = range(self._start, len(self)), 0
        deque(islice(clips, batches.start * per_step), maxlen=0)  # drawn, not read
        start = self.rank * self.batch_size
        for _ in batches:
            yield list(islice(clips, per_step))[start : start + self.batch_size]
