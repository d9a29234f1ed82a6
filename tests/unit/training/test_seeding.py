"""A step's draws depend on its place in the run and on nothing else."""

import itertools

import torch

from eat.training.seeding import step_generator, step_seed

PLACES = list(itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 12, 2), (0, 1, 7)))


def draw(place):
    return torch.rand(4, generator=step_generator(*place))


def test_every_place_has_its_own_seed():
    assert len({step_seed(*place) for place in PLACES}) == len(PLACES)


def test_digits_do_not_run_together():
    places = [(1, 11, 1, 0), (11, 1, 1, 0), (1, 1, 11, 0), (1, 1, 1, 10)]
    assert len({step_seed(*place) for place in places}) == 4


def test_each_coordinate_matters():
    reference = draw((1, 2, 3, 4))
    for place in [(9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)]:
        assert not torch.equal(draw(place), reference)


def test_draws_are_reproducible():
    expected = [draw(place) for place in PLACES[:5]]
    torch.manual_seed(0)  # the global generator has no part in it
    for place, values in zip(PLACES[:5], expected, strict=True):
        assert torch.equal(draw(place), values)


def test_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw((1, 1, 1, 0))
    assert torch.equal(torch.rand(3), expected)


def test_seeds_fit_torch_and_do_not_change():
    assert all(0 <= step_seed(*place) < 2**63 for place in PLACES)
    # SHA-256 of "1/2/3/0": the same on any machine and in any version.
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3, rank=0) == 6065472413412056399
