"""Draws depend on a batch's or clip's place in the run and on nothing else."""

import itertools

import pytest
import torch

from eat.utils.random import batch_generator, clip_generators, step_seed

PLACES = list(itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 12, 2)))


def draw(place):
    return torch.rand(4, generator=batch_generator(*place))


def test_every_place_has_its_own_seed():
    seeds = {step_seed(*place, kind) for place in PLACES for kind in ("batch", "clip")}
    assert len(seeds) == 2 * len(PLACES)


def test_digits_do_not_run_together():
    places = [(1, 11, 1), (11, 1, 1), (1, 1, 11), (1, 111, 1)]
    assert len({step_seed(*place) for place in places}) == 4


def test_each_coordinate_matters():
    reference = draw((1, 2, 3))
    for place in [(9, 2, 3), (1, 9, 3), (1, 2, 9)]:
        assert not torch.equal(draw(place), reference)


def test_draws_are_reproducible():
    expected = [draw(place) for place in PLACES[:5]]
    torch.manual_seed(0)  # the global generator has no part in it
    for place, values in zip(PLACES[:5], expected, strict=True):
        assert torch.equal(draw(place), values)


@pytest.mark.parametrize("clips", [1, 3, 4])
def test_clips_do_not_depend_on_the_batches_they_come_in(clips):
    whole = [torch.rand(3, generator=g) for g in clip_generators(1, 2, 0, 12)]
    parts = [
        torch.rand(3, generator=generator)
        for first in range(0, 12, clips)
        for generator in clip_generators(1, 2, first, clips)
    ]
    assert torch.equal(torch.stack(whole), torch.stack(parts))
    assert len({tuple(values.tolist()) for values in whole}) == 12


def test_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw((1, 1, 1))
    clip_generators(1, 1, 0, 4)
    assert torch.equal(torch.rand(3), expected)


def test_seeds_fit_torch_and_do_not_change():
    assert all(0 <= step_seed(*place) < 2**63 for place in PLACES)
    # SHA-256 of "batch/1/2/3": the same on any machine and in any version.
    assert step_seed(1, 2, 3) == 7727369000568383974
