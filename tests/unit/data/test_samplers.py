import time
from collections import Counter
from itertools import permutations

import pytest
import torch

from eat.data.samplers import (
    EpochSampler,
    RankBatches,
    WeightedSampler,
    balancing_weights,
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


def test_two_million_clips_are_fast():
    sampler = EpochSampler(2_000_000, 200_000, seed=0)
    start = time.perf_counter()
    assert len(set(epoch(sampler, 7))) == 200_000
    assert time.perf_counter() - start < 1.0


def test_balancing_weights_are_those_of_audio_mae():
    # As gen_weight.py computes them: three clips have "a", two "b", one "c".
    weights = balancing_weights([["a"], ["a", "b"], [], ["c", "a"], ["b"]])
    a, b, c = 1000 / 3.01, 1000 / 2.01, 1000 / 1.01
    expected = torch.tensor([a, a + b, 0, c + a, b], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-15, atol=0)


def test_balancing_makes_single_classes_equally_likely():
    labels = [["rare"]] * 10 + [["often"]] * 1000
    weights = balancing_weights(labels)
    share = (weights[:10].sum() / weights.sum()).item()
    assert share == pytest.approx(0.5, abs=3e-4)


WEIGHTS = torch.tensor([5.0, 0.0, 1.0, 2.0, 0.5], dtype=torch.float64)


def frequencies(draws, epoch_size, epochs=20000):
    sampler = WeightedSampler(WEIGHTS, draws, epoch_size, seed=3)
    seen = torch.zeros(len(WEIGHTS), dtype=torch.float64)
    for number in range(1, epochs + 1):
        indices = epoch(sampler, number)
        assert len(set(indices)) == len(indices) == len(sampler) == epoch_size
        seen[indices] += 1
    return seen / epochs


def test_the_first_draw_follows_the_weights():
    # 4 standard deviations of a frequency are at most 0.014.
    expected = WEIGHTS / WEIGHTS.sum()
    torch.testing.assert_close(frequencies(4, 1), expected, rtol=0, atol=0.014)


def test_inclusion_follows_successive_draws():
    # All ways to draw two, one after the other, each with its exact probability.
    weights, expected = WEIGHTS.tolist(), [0.0] * 5
    for first, second in permutations(range(5), 2):
        chance = weights[first] / 8.5 * weights[second] / (8.5 - weights[first])
        expected[first] += chance
        expected[second] += chance
    assert sum(expected) == pytest.approx(2)
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(frequencies(2, 2), expected, rtol=0, atol=0.014)


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
    weights = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)).double()
    start = time.perf_counter()
    assert len(list(WeightedSampler(weights, 200_000, 199_968, seed=0))) == 199_968
    assert time.perf_counter() - start < 3.0


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
