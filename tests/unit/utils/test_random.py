"""Random numbers depend only on the place of a batch or clip in the run."""

import itertools

import pytest
import torch

from eat.pretraining.masking import (
    FlexibleBlockMasking,
    InverseBlockMasking,
    RandomMasking,
)
from eat.utils.random import (
    batch_generator,
    clip_generators,
    device_of,
    integers,
    normal,
    step_seed,
    uniform,
)

PLACES = list(itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 12, 2)))
DRAWS = {
    "uniform": lambda batch, g: uniform(batch, (3, 2), g),
    "normal": lambda batch, g: normal(batch, (3, 2), g, torch.float32),
    "integers": lambda batch, g: integers(1000, batch, (3, 2), g),
}
MASKINGS = [RandomMasking(), InverseBlockMasking(block=(3, 3)), FlexibleBlockMasking()]


def draw(place):
    return torch.rand(4, generator=batch_generator(*place))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


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
        assert not torch.equal(draw(place), reference)


def test_numbers_are_reproducible():
    expected = [draw(place) for place in PLACES[:5]]
    torch.manual_seed(0)  # the global generator is not used
    for place, values in zip(PLACES[:5], expected, strict=True):
        assert torch.equal(draw(place), values)


@pytest.mark.parametrize("clips", [1, 3, 4])
def test_clips_do_not_depend_on_the_batch_size(clips):
    epoch = [torch.rand(3, generator=g) for g in clip_generators(1, 2, 0, 12)]
    batches = [
        torch.rand(3, generator=generator)
        for first in range(0, 12, clips)
        for generator in clip_generators(1, 2, first, clips)
    ]
    assert torch.equal(torch.stack(epoch), torch.stack(batches))
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


# -- batches of random numbers -----------------------------------------------------


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_batch_consists_of_its_clips(draw):
    batch = draw(3, generators(5, 6, 7))
    clips = [draw(1, generators(seed)) for seed in (5, 6, 7)]
    assert batch.shape == (3, 3, 2) and torch.equal(batch, torch.cat(clips))
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_one_generator_for_a_batch(draw):
    one, again = (draw(4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.shape == (4, 3, 2) and torch.equal(one, again)


def test_ranges():
    seeds = range(100)
    assert set(integers(3, 100, (4,), generators(*seeds)).unique().tolist()) == {
        0,
        1,
        2,
    }
    values = uniform(100, (50,), generators(*seeds))
    assert 0 <= values.min() and values.max() < 1 and abs(values.mean() - 0.5) < 0.02
    noise = normal(100, (50,), generators(*seeds), torch.bfloat16)
    assert noise.dtype == torch.bfloat16 and abs(noise.float().std() - 1) < 0.03


def test_there_must_be_one_generator_per_clip():
    with pytest.raises(ValueError, match="2 .*3"):
        uniform(3, (1,), generators(1, 2))
    assert device_of(generators(1)) == torch.device("cpu")


@pytest.mark.parametrize("sampler", MASKINGS, ids=lambda s: type(s).__name__)
def test_masks_do_not_depend_on_the_batch(sampler):
    batch = sampler(3, 4, (64, 8), generators(1, 2, 3)).mask
    clips = [sampler(1, 4, (64, 8), generators(seed)).mask for seed in (1, 2, 3)]
    assert torch.equal(batch, torch.cat(clips))
    assert ((~batch).sum(dim=1) == 102).all()
    assert len({tuple(mask.tolist()) for mask in batch}) == 12
