"""Permutations by index: each value once, and as mixed as random ones."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from eat.data.permutation import Permutation, random_bits, random_keys


def order_of(size, *numbers):
    return Permutation(size, *numbers)[np.arange(size)]


def test_every_value_occurs_once():
    for size in (*range(1, 200), 1000, 4096, 65_537, 300_000):
        assert np.array_equal(np.sort(order_of(size, 3)), np.arange(size)), size


def test_values_depend_on_numbers_and_position_only():
    whole = order_of(1000, 1, 2)
    part = Permutation(1000, 1, 2)[np.array([999, 0, 500, 500])]
    assert part.tolist() == whole[[999, 0, 500, 500]].tolist()
    others = (order_of(1000, *numbers) for numbers in ((1, 3), (2, 2), (2, 1)))
    assert all((whole == other).sum() < 10 for other in others)


def test_bits_are_those_of_splitmix64():
    # The first outputs of the published generator with seed 1234567.
    bits = random_bits(np.uint64(1234567), np.arange(1, 4, dtype=np.uint64))
    assert bits.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_orders_of_few_values_are_equally_likely(size):
    counts = dict.fromkeys(permutations(range(size)), 0)
    for seed in range(10 * len(counts)):
        counts[tuple(order_of(size, seed).tolist())] += 1
    assert stats.chisquare([*counts.values()]).pvalue > 1e-3


@pytest.mark.parametrize("size", [100, 1021, 4000])
def test_statistics_are_those_of_random_permutations(size):
    seeds, bins = 60, 10
    where = np.arange(size)
    table, fixed, correlations = np.zeros((bins, bins)), [], []
    for seed in range(seeds):
        order = order_of(size, seed, 7)
        np.add.at(table, (where * bins // size, order * bins // size), 1)
        fixed.append((order == where).sum())
        for pair in ((order[:-1], order[1:]), (order[:-2], order[2:]), (where, order)):
            correlations.append(np.corrcoef(*pair)[0, 1])
    # Rows and columns of the table are fixed: 81 degrees of freedom, scaled up as the
    # cells of a permutation vary less than multinomial ones.
    expected = table.sum() / bins**2
    statistic = ((table - expected) ** 2 / expected).sum() * (size - 1) / size
    assert 1e-3 < stats.chi2.sf(statistic, (bins - 1) ** 2) < 1 - 1e-3
    # The number of fixed points is Poisson distributed with mean 1.
    assert abs(np.mean(fixed) - 1) < 3.5 / np.sqrt(seeds)
    # The serial correlations have mean -1/size and variance 1/size.
    deviations = np.reshape(correlations, (seeds, 3)) * np.sqrt(size)
    assert (np.abs(deviations.mean(axis=0)) < 3.5 / np.sqrt(seeds) + 0.1).all()
    assert (np.abs(deviations.std(axis=0) - 1) < 3.5 / np.sqrt(2 * seeds)).all()


def test_keys_of_pairs_are_unrelated():
    assert random_keys(2, 0, 1).tolist() != random_keys(2, 1, 0).tolist()
