"""Which clips form an epoch: a pure function of (seed, epoch), in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from eat.data.permutation import Permutation, random_bits, random_keys
from eat.errors import ManifestError

_CHUNK = 2**16


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

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return the indices of the clips from `start` to `stop` of the epoch, int64.

        Those before are not computed.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.epoch_size, _CHUNK):
            yield from self.part(start, min(start + _CHUNK, self.epoch_size)).tolist()


class EpochSampler(_EpochSampler):
    """Epochs of any size, taken from successive shuffles of the corpus.

    The shuffles of the corpus form an endless sequence; epoch e is its e-th segment of
    `epoch_size` indices. An epoch may therefore be shorter or longer than the corpus,
    all clips are seen equally often (counts differ by at most one), and resuming needs
    no saved state. A shuffle is a `Permutation`, which is not stored.

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

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return the indices of the clips from `start` to `stop` of the epoch."""
        before = (self.epoch - 1) * self.epoch_size
        position, end = before + start, before + stop
        parts = [np.empty(0, np.int64)]
        while position < end:
            shuffle, offset = divmod(position, self.num_items)
            count = min(self.num_items - offset, end - position)
            order = Permutation(self.num_items, self.seed, shuffle)
            parts.append(order[np.arange(offset, offset + count)])
            position += count
        return np.concatenate(parts)


class LabeledClips(Protocol):
    """Clips whose labels are numbered."""

    def __len__(self) -> int:
        """Return the number of clips."""
        ...

    def label_codes(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of these clips, joined, and how many each clip has."""
        ...


class Weights(Protocol):
    """Weights `[M]`, of which parts are asked for; arrays and tensors are such."""

    def __len__(self) -> int:
        """Return the number of weights."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some of the weights."""
        ...


class BalancingWeights:
    """Weights that make rare classes about as frequent as common ones.

    This is the rule of Audio-MAE's ``gen_weight.py``, which EAT's fine-tuning on
    AudioSet-2M uses: ``w = sum over the clip's labels of 1000 / (count + 0.01)``, where
    count is the number of clips with that label; 0 for a clip without labels. A slice
    is computed from the labels whenever it is asked for, as float64.
    """

    def __init__(self, clips: LabeledClips) -> None:
        self.clips = clips
        counts = np.zeros(0, np.int64)
        for start in range(0, len(clips), _CHUNK):
            codes, _ = clips.label_codes(start, min(start + _CHUNK, len(clips)))
            found = np.bincount(codes, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        self.shares = 1000 / (counts + 0.01)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        codes, sizes = self.clips.label_codes(start, stop)
        clips = np.repeat(np.arange(len(sizes)), sizes)
        return np.bincount(clips, self.shares[codes], minlength=len(sizes))


class WeightedSampler(_EpochSampler):
    """Epochs of distinct clips, drawn with probability proportional to weights.

    Epoch e draws `draws` clips without replacement, one after the other, and yields the
    first `epoch_size`. The clips with the smallest E / weight are such draws if the E
    are independent and exponentially distributed (Efraimidis and Spirakis, 2006); each
    E is a function of (seed, epoch, clip), so that memory is needed for the draws only.

    Parameters
    ----------
    weights
        Weights `[M]`; clips are drawn if theirs is above 0.
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

    def __init__(
        self, weights: Weights, draws: int, epoch_size: int, seed: int
    ) -> None:
        super().__init__(epoch_size, seed)
        self.weights = weights
        self.draws = draws
        if draws < epoch_size:
            raise ManifestError(
                f"weighted sampling: an epoch has {epoch_size} clips, but only {draws} "
                "are drawn (draw more or shorten the epoch)"
            )
        if (possible := len(self.drawn)) < draws:
            raise ManifestError(
                f"weighted sampling: cannot draw {draws} distinct clips, as only "
                f"{possible} have a positive weight (draw {possible} or fewer)"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 1; SpeechBrain calls this."""
        if epoch != self.epoch:
            self.__dict__.pop("drawn", None)
        super().set_epoch(epoch)

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return the indices of the clips from `start` to `stop` of the epoch."""
        return self.drawn[start:stop]

    @cached_property
    def drawn(self) -> np.ndarray:
        """The clips in the order in which they are drawn, int64."""
        [key] = random_keys(1, self.seed, self.epoch)
        found = [np.empty((2, 0))]  # clips and their times of arrival
        limit = np.inf  # those that arrive later are not drawn
        for start, weights in self._chunks():
            clips = np.arange(start, start + len(weights))
            bits = random_bits(key, clips.astype(np.uint64))
            # The middle of one of 2^53 equal parts of the unit interval.
            uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53
            with np.errstate(divide="ignore", invalid="ignore"):
                times = -np.log(uniform) / weights
            early = (times < limit) & (weights > 0)
            found.append(np.stack([clips[early], times[early]]))
            if sum(part.shape[1] for part in found) > 2 * self.draws:
                found = [_earliest(np.hstack(found), self.draws)]
                limit = found[0][1, -1]
        return _earliest(np.hstack(found), self.draws)[0].astype(np.int64)

    def _chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first clip and the weights of each part of the corpus."""
        for start in range(0, len(self.weights), _CHUNK):
            yield start, np.asarray(self.weights[start : start + _CHUNK], np.float64)


def _earliest(arrivals: np.ndarray, count: int) -> np.ndarray:
    """Return the first of clips and their times `[2, M]`, in order of time."""
    return arrivals[:, np.argsort(arrivals[1], kind="stable")[:count]]


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
        per_step = self.batch_size * self.world_size
        batches, self._start = range(self._start, len(self)), 0
        for number in batches:
            start = number * per_step + self.rank * self.batch_size
            yield self.sampler.part(start, start + self.batch_size).tolist()
