"""Random numbers depend only on the place of a batch or clip in the run."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from eat.pretraining.masking import (
    FlexibleBlockMasking,
    InverseBlockMasking,
    RandomMasking,
)
from eat.utils.random import (
    CPU_HASHES,
    CounterGenerator,
    batch_generator,
    clip_generators,
    integers,
    normal,
    step_seed,
    uniform,
)

PLACES = list(itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 12, 2)))
DRAWS = {
    "uniform": uniform,
    "normal": lambda batch, shape, g: normal(batch, shape, g, torch.float32),
    "integers": lambda batch, shape, g: integers(1000, batch, shape, g),
}
MASKINGS = [RandomMasking(), InverseBlockMasking(block=(3, 3)), FlexibleBlockMasking()]


def draw(place):
    return batch_generator(*place).random(4)


def generators(*keys):
    return CounterGenerator(torch.tensor(keys))


def words(generator, count):
    """Return the hashes of each clip, int64."""
    halves = generator.draw(2 * count, torch.int32, lambda words: words, torch.int32)
    return halves.contiguous().view(torch.int64)


# -- seeds and generators ----------------------------------------------------------


def test_every_place_has_its_own_seed():
    seeds = {step_seed(*place, kind) for place in PLACES for kind in ("batch", "clip")}
    assert len(seeds) == 2 * len(PLACES)


def test_digits_of_coordinates_are_not_joined():
    places = [(1, 11, 1), (11, 1, 1), (1, 1, 11), (1, 111, 1)]
    assert len({step_seed(*place) for place in places}) == 4


def test_each_coordinate_matters():
    reference = draw((1, 2, 3))
    for place in [(9, 2, 3), (1, 9, 3), (1, 2, 9)]:
        assert not np.array_equal(draw(place), reference)


def test_numbers_are_reproducible():
    expected = [draw(place) for place in PLACES[:5]]
    torch.manual_seed(0)  # the global generator is not used
    for place, values in zip(PLACES[:5], expected, strict=True):
        assert np.array_equal(draw(place), values)


@pytest.mark.parametrize("clips", [1, 3, 4])
def test_clips_do_not_depend_on_the_batch_size(clips):
    epoch = uniform(12, (3,), clip_generators(1, 2, 0, 12))
    batches = [
        uniform(clips, (3,), clip_generators(1, 2, first, clips))
        for first in range(0, 12, clips)
    ]
    assert torch.equal(epoch, torch.cat(batches))
    assert len({tuple(values.tolist()) for values in epoch}) == 12


def test_global_generator_is_unchanged():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw((1, 1, 1))
    clip_generators(1, 1, 0, 4)
    assert torch.equal(torch.rand(3), expected)


def test_seeds_fit_torch_and_never_change():
    assert all(0 <= step_seed(*place) < 2**63 for place in PLACES)
    # From the SHA-256 of "batch/1/2/3": the same on every machine and in every version.
    assert step_seed(1, 2, 3) == 7727369000568383974


# -- the hash ----------------------------------------------------------------------

PUBLISHED = {  # the first outputs of SplitMix64, as in the test vectors of its ports
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F),
    1234567: (6457827717110365317, 3203168211198807973, 9817491932198370423),
}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_hash_is_splitmix64(seed):
    """Keys are the outputs of SplitMix64, and so are the numbers of a step of 1."""
    keys = CounterGenerator.from_seed(seed, 3, first=1)._keys.flatten()
    assert [key % 2**64 for key in keys.tolist()] == list(PUBLISHED[seed])


def splitmix64(state):
    """Return the hash of a state, computed with Python's integers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_numbers_are_hashes_of_key_and_counter():
    keys = [0, 1, 2**63 - 1, -1, -(2**63), 123456789]
    generator = generators(*keys)
    found = torch.cat([words(generator, count) for count in (1, 3, 2)], dim=1)
    for key, row in zip(keys, found.tolist(), strict=True):
        step = splitmix64(key % 2**64) | 1
        hashes = [splitmix64((key + i * step) % 2**64) for i in range(6)]
        assert [value % 2**64 for value in row] == hashes


def test_clips_of_a_long_run_have_different_keys():
    """So have neighboring epochs, and the numbers of a clip and of its neighbor."""
    epochs = [clip_generators(1, epoch, 0, 100_000)._keys for epoch in (1, 2)]
    assert len(torch.cat(epochs).unique()) == 200_000
    assert len(words(clip_generators(1, 1, 0, 4), 50_000).unique()) == 200_000


# -- batches of random numbers -----------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 2), (7,), (CPU_HASHES + 5,)])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_batch_consists_of_its_clips(draw, shape):
    """Also if the numbers are drawn in several parts, which depend on the batch."""
    batch = draw(3, shape, generators(5, 6, 7))
    clips = [draw(1, shape, generators(key)) for key in (5, 6, 7)]
    assert batch.shape == (3, *shape) and torch.equal(batch, torch.cat(clips))
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_follow_each_other(draw):
    generator = generators(5, 6)
    first, second = (draw(2, (4,), generator) for _ in range(2))
    assert torch.equal(torch.cat([first, second], 1), draw(2, (8,), generators(5, 6)))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_one_torch_generator_for_a_batch(draw):
    one, again = (draw(4, (3, 2), torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.shape == (4, 3, 2) and torch.equal(one, again)


DISTRIBUTIONS = {
    "uniform": (lambda g: uniform(4, (50_000,), g), scipy.stats.uniform()),
    "normal": (
        lambda g: normal(4, (50_000,), g, torch.float64, 0.5),
        scipy.stats.norm(scale=0.5),
    ),
    "integers": (  # a uniform fraction tells their distribution
        lambda g: integers(2**31, 4, (50_000,), g) / 2**31,
        scipy.stats.uniform(),
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name):
    """Kolmogorov-Smirnov, moments, no correlation of clips or successive numbers."""
    sample, expected = DISTRIBUTIONS[name]
    values = sample(clip_generators(3, 1, 0, 4)).double().numpy()
    assert scipy.stats.kstest(values.flatten(), expected.cdf).pvalue > 0.01
    z = (values - expected.mean()) / expected.std()
    kurtosis = expected.stats("k") + 3
    assert abs(z.mean()) < 4 / z.size**0.5
    assert abs((z**2).mean() - 1) < 4 * ((kurtosis - 1) / z.size) ** 0.5
    assert abs((z**4).mean() - kurtosis) < 0.1
    limit = 4 / z.shape[1] ** 0.5
    between = np.corrcoef(z)[np.triu_indices(4, 1)]
    lagged = [(z[:, lag:] * z[:, :-lag]).mean() for lag in (1, 2, 3, 4, 768)]
    assert abs(between).max() < limit and np.abs(lagged).max() < limit


def test_normal_numbers_are_quantiles():
    """Their mean and variance are exact, in the type that is asked for."""
    drawn = normal(1, (2**21,), generators(1), torch.float64)
    many = torch.from_numpy(np.unique(drawn))
    assert len(many) == 2**16  # each is missing with probability e^-32
    assert many.mean().abs() < 1e-12 and many.square().mean().item() == pytest.approx(1)
    probability = torch.special.ndtr(many)
    middles = (torch.arange(2**16) + 0.5) / 2**16
    torch.testing.assert_close(probability, middles.double(), atol=2**-17, rtol=0)
    noise = normal(2, (1000,), generators(1, 2), torch.bfloat16, 0.01)
    exact = normal(2, (1000,), generators(1, 2), torch.float64, 0.01)
    assert torch.equal(noise, exact.bfloat16())


@pytest.mark.parametrize("high", [1, 3, 512])
def test_integers_are_uniform(high):
    counts = integers(high, 8, (20_000,), clip_generators(1, 1, 0, 8)).unique(
        return_counts=True
    )
    assert counts[0].tolist() == list(range(high))
    assert high == 1 or scipy.stats.chisquare(counts[1]).pvalue > 0.01


def test_uniform_excludes_1():
    values = uniform(8, (100_000,), clip_generators(1, 1, 0, 8))
    assert 0 <= values.min() < 1e-4 and 0.9999 < values.max() < 1
    assert torch.equal((values * 2**24).frac(), torch.zeros_like(values))


def test_there_must_be_one_generator_per_clip():
    with pytest.raises(ValueError, match="2 .*3"):
        uniform(3, (1,), generators(1, 2))


@pytest.mark.parametrize("sampler", MASKINGS, ids=lambda s: type(s).__name__)
def test_masks_do_not_depend_on_the_batch(sampler):
    batch = sampler(3, 4, (64, 8), generators(1, 2, 3)).mask
    clips = [sampler(1, 4, (64, 8), generators(key)).mask for key in (1, 2, 3)]
    assert torch.equal(batch, torch.cat(clips))
    assert ((~batch).sum(dim=1) == 102).all()
    assert len({tuple(mask.tolist()) for mask in batch}) == 12
