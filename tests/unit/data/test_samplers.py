import time
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from eat.data.samplers import (
    BalancingWeights,
    EpochSampler,
    RankBatches,
    WeightedSampler,
)
from eat.errors import ManifestError


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


@pytest.mark.parametrize("epoch_size", [1, 3, 10, 25, 30])
def test_clips_are_seen_equally_often_after_any_epoch(epoch_size):
    sampler, seen = EpochSampler(10, epoch_size, seed=5), Counter(range(10))
    for number in range(1, 30):
        indices = epoch(sampler, number)
        assert len(indices) == len(sampler) == epoch_size
        seen.update(indices)
        assert max(seen.values()) - min(seen.values()) <= 1
    assert set(seen) == set(range(10))


def test_epochs_of_the_corpus_size_are_different_permutations():
    sampler = EpochSampler(50, 50, seed=0)
    epochs = [epoch(sampler, number) for number in (1, 2, 3)]
    assert all(sorted(indices) == list(range(50)) for indices in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_epoch_size_only_splits_the_same_sequence():
    short, long = EpochSampler(10, 4, seed=1), EpochSampler(10, 20, seed=1)
    pieces = [epoch(short, number) for number in range(1, 6)]
    assert sum(pieces, []) == epoch(long, 1)


def test_an_epoch_does_not_depend_on_earlier_ones():
    walked = EpochSampler(100, 30, seed=2)
    for number in range(1, 9):
        last = epoch(walked, number)
    assert last == epoch(EpochSampler(100, 30, seed=2), 8)
    assert last == list(walked)  # iterating again changes nothing


def test_the_first_epoch_is_number_one():
    assert list(EpochSampler(20, 5, 0)) == epoch(EpochSampler(20, 5, 0), 1)


def test_seeds_differ():
    first = [epoch(EpochSampler(100, 100, seed), 1) for seed in range(5)]
    assert len(set(map(tuple, first))) == 5
    # Seed 0, shuffle 1 and seed 1, shuffle 0 must not be the same.
    assert epoch(EpochSampler(100, 100, 0), 2) != epoch(EpochSampler(100, 100, 1), 1)


@pytest.mark.parametrize("epoch_size", [7, 50, 120])
def test_a_part_is_that_of_the_whole_epoch(epoch_size):
    sampler = EpochSampler(50, epoch_size, seed=4)
    sampler.set_epoch(3)
    whole = list(sampler)
    for start, stop in ((0, 0), (0, epoch_size), (3, 5), (epoch_size - 1, epoch_size)):
        assert sampler.part(start, stop).tolist() == whole[start:stop]


def test_a_billion_clips_start_anywhere_at_once():
    batches = RankBatches(EpochSampler(10**9, 10**9, seed=0), 32)
    batches.start_from(20_000_000)
    start = time.process_time()
    first, second = next(zip(*[iter(batches)] * 2, strict=False))
    assert len({*first, *second}) == 64 and max(first + second) < 10**9
    assert time.process_time() - start < 0.1


class Labeled:
    """Clips with labels, numbered in order of appearance."""

    def __init__(self, labels):
        self.labels = labels
        self.names = list(dict.fromkeys(sum(labels, [])))

    def __len__(self):
        return len(self.labels)

    def label_codes(self, start, stop):
        part = self.labels[start:stop]
        codes = [self.names.index(label) for label in sum(part, [])]
        return np.array(codes, int), np.array([len(labels) for labels in part])


def test_balancing_weights_are_those_of_audio_mae():
    # As gen_weight.py computes them: three clips have "a", two "b", one "c".
    weights = BalancingWeights(Labeled([["a"], ["a", "b"], [], ["c", "a"], ["b"]]))
    a, b, c = 1000 / 3.01, 1000 / 2.01, 1000 / 1.01
    np.testing.assert_allclose(weights[:], [a, a + b, 0, c + a, b], rtol=1e-15)
    assert len(weights) == 5 and weights[2:4].tolist() == weights[:].tolist()[2:4]


def test_balancing_makes_single_classes_equally_likely():
    labels = [["rare"]] * 10 + [["often"]] * 1000
    weights = BalancingWeights(Labeled(labels))[:]
    share = (weights[:10].sum() / weights.sum()).item()
    assert share == pytest.approx(0.5, abs=3e-4)


WEIGHTS = torch.tensor([5.0, 0.0, 1.0, 2.0, 0.5], dtype=torch.float64)


def test_draws_follow_the_weights_one_after_the_other():
    weights = WEIGHTS.tolist()
    expected = {
        (first, second): weights[first] / 8.5 * weights[second] / (8.5 - weights[first])
        for first, second in permutations((0, 2, 3, 4), 2)
    }
    assert sum(expected.values()) == pytest.approx(1)
    sampler, epochs = WeightedSampler(WEIGHTS, 2, 2, seed=3), range(1, 2001)
    found = Counter(tuple(epoch(sampler, number)) for number in epochs)
    assert found.keys() <= expected.keys()
    counts = [found[pair] for pair in expected]
    chances = np.array([*expected.values()]) * len(epochs)
    assert stats.chisquare(counts, chances).pvalue > 1e-3


def test_weighted_epochs_depend_on_seed_and_number_only():
    weights = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double()
    sampler = WeightedSampler(weights, 100, 100, seed=1)
    epochs = [epoch(sampler, number) for number in (1, 2, 3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(sampler) == epochs[2]  # iterating again changes nothing
    torch.manual_seed(5)
    again = WeightedSampler(weights, 100, 60, seed=1)
    assert list(again) == epochs[0][:60]
    assert epoch(again, 3) == epochs[2][:60]  # a shorter epoch only truncates the draws
    assert epoch(WeightedSampler(weights, 100, 100, seed=2), 1) != epochs[0]


def test_all_clips_with_a_weight_can_be_drawn():
    assert sorted(WeightedSampler(WEIGHTS, 4, 4, seed=0)) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("draws", "epoch_size", "fault"),
    [
        (5, 4, "5 .* 4 .*draw 4 "),
        (3, 4, " 4 .* 3 "),
    ],
)
def test_impossible_draws(draws, epoch_size, fault):
    with pytest.raises(ManifestError, match=fault):
        WeightedSampler(WEIGHTS, draws, epoch_size, seed=0)


def test_weighted_draws_from_two_million_clips_are_fast():
    weights = np.random.default_rng(0).random(2_000_000)
    start = time.process_time()
    drawn = list(WeightedSampler(weights, 200_000, 199_968, seed=0))
    assert time.process_time() - start < 3.0
    assert len(set(drawn)) == len(drawn) == 199_968


def test_more_clips_than_one_chunk_follow_their_weights():
    # Of two million clips with two weights, the few draws are nearly independent.
    weights = np.tile([1.0, 3.0], 10**6)
    drawn = WeightedSampler(weights, 40_000, 40_000, seed=2).drawn
    # The standard deviation of the shares is 0.0022, or a little less.
    assert abs((drawn % 2 == 1).mean() - 0.75) < 0.009
    assert abs((drawn < 10**6).mean() - 0.5) < 0.01


@pytest.mark.parametrize(("world", "batch"), [(1, 3), (2, 3), (3, 2)])
def test_ranks_share_the_batches_of_one_process(world, batch):
    sampler = EpochSampler(50, 22, seed=1)
    alone = RankBatches(sampler, batch)
    parts = [RankBatches(sampler, batch, rank, world) for rank in range(world)]
    for epoch in (1, 2):
        alone.set_epoch(epoch)
        alone_batches = list(alone)
        assert [clip for clips in alone_batches for clip in clips] == list(sampler)[
            : len(alone_batches) * batch
        ]
        parts_batches = [list(part) for part in parts]
        assert {len(part) for part in parts_batches} == {len(parts[0])}
        joined = [clips for step in zip(*parts_batches, strict=True) for clips in step]
        assert joined == alone_batches[: len(joined)]
        assert len(alone_batches) - len(joined) < world
        for part, batches in zip(parts, parts_batches, strict=True):
            part.start_from(2)
            assert list(part) == batches[2:]
            assert list(part) == batches  # the next epoch is complete
