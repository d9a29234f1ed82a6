"""Which clips make up an epoch: a pure function of (seed, epoch)."""

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

_PIECE = 4096


def _generator(seed: int, number: int) -> torch.Generator:
    """Return the generator with this number in the seed's sequence."""
    # SeedSequence mixes the pair, so that (0, 1) and (1, 0) have nothing in common.
    mixed = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _permutation(num_items: int, seed: int, number: int) -> Tensor:
    """Return the permutation `[num_items]` with this number in the seed's sequence."""
    return torch.randperm(num_items, generator=_generator(seed, number))


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
            # In pieces: two million Python integers take five times the memory.
            for piece in order[offset : offset + count].split(_PIECE):
                yield from piece.tolist()
            position += count


def balancing_weights(labels: Iterable[Sequence[str]]) -> Tensor:
    """Weigh clips so that rare classes are drawn about as often as frequent ones.

    The rule of Audio-MAE's ``gen_weight.py``, which EAT's fine-tuning on all of
    AudioSet uses: ``w = sum over the clip's labels of 1000 / (count + 0.01)``, where
    count is the number of clips with that label.

    Parameters
    ----------
    labels : iterable of sequences of str
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
    flat = np.asarray(flat, np.int32)
    shares = 1000 / (np.bincount(flat, minlength=len(codes)) + 0.01)
    clips = np.repeat(np.arange(len(sizes)), sizes)
    return torch.from_numpy(np.bincount(clips, shares[flat], minlength=len(sizes)))


class WeightedSampler(Sampler[int]):
    """Epochs of different clips, drawn with probability proportional to weights.

    Epoch e draws `draws` clips without replacement and yields the first `epoch_size`
    of them; the draws of an epoch are a pure function of the seed and its number.

    Parameters
    ----------
    weights : Tensor
        `[M]`, not negative, at most 2^24 clips; clips of weight 0 are never drawn.
    draws : int
        Clips to draw for an epoch; officially 200,000.
    epoch_size : int
        Clips of an epoch, at most `draws`: those that fill whole steps.
    seed : int
        Seed of all draws, not negative.

    Raises
    ------
    ManifestError
        If fewer clips have a positive weight than are to be drawn, or fewer are to be
        drawn than an epoch has.
    """

    def __init__(self, weights: Tensor, draws: int, epoch_size: int, seed: int) -> None:
        possible = int((weights > 0).sum())
        if possible < draws:
            raise ManifestError(
                f"weighted sampling: an epoch is to draw {draws} different clips and "
                f"only {possible} have a positive weight (draw {possible} or fewer)"
            )
        if draws < epoch_size:
            raise ManifestError(
                f"weighted sampling: an epoch has {epoch_size} clips and only {draws} "
                "are drawn (draw more or make the epoch shorter)"
            )
        self.weights = weights
        self.draws = draws
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
        generator = _generator(self.seed, self.epoch)
        drawn = torch.multinomial(self.weights, self.draws, generator=generator)
        yield from drawn[: self.epoch_size].tolist()


class RankBatches(Sampler[list[int]]):
    """The batches of one of several processes, dealt out in turn.

    Batch m of the epoch goes to process m modulo their number: a step of several
    processes takes the batches that one process would accumulate in it, and each batch
    holds the same clips in either case. Clips that fill no batch for all are left out.

    Parameters
    ----------
    sampler : EpochSampler or WeightedSampler
        The clips of an epoch, the same in all processes.
    batch_size : int
        Clips of a batch.
    rank, world_size : int
        Which process this is, of how many.
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self._start = 0

    def start_from(self, batch: int) -> None:
        """Leave out the first batches of this process, the next time only.

        Parameters
        ----------
        batch : int
            How many.
        """
        self._start = batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; SpeechBrain calls it, counting from 1.

        Parameters
        ----------
        epoch : int
            Number of the epoch, 1 or more.
        """
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        clips, every = iter(self.sampler), self.batch_size * self.world_size
        batches, self._start = range(self._start, len(self)), 0
        deque(islice(clips, batches.start * every), maxlen=0)  # drawn, not read
        start = self.rank * self.batch_size
        for _ in batches:
            yield list(islice(clips, every))[start : start + self.batch_size]
