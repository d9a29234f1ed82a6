import time
from collections import Counter

import pytest

from eat.data.sampling import EpochSampler


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


def test_the_epoch_size_only_cuts_the_same_sequence():
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


def test_two_million_clips_take_a_moment():
    sampler = EpochSampler(2_000_000, 200_000, seed=0)
    start = time.perf_counter()
    assert len(set(epoch(sampler, 7))) == 200_000
    assert time.perf_counter() - start < 1.0
