"""What is drawn for a clip depends on its generator only."""

import pytest
import torch

from eat.pretraining.masking import (
    FlexibleBlockMasking,
    InverseBlockMasking,
    RandomMasking,
)
from eat.utils.random import device_of, integers, normal, uniform


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


DRAWS = {
    "uniform": lambda batch, g: uniform(batch, (3, 2), g),
    "normal": lambda batch, g: normal(batch, (3, 2), g, torch.float32),
    "integers": lambda batch, g: integers(1000, batch, (3, 2), g),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_batch_is_its_clips(draw):
    batch = draw(3, generators(5, 6, 7))
    alone = [draw(1, generators(seed)) for seed in (5, 6, 7)]
    assert batch.shape == (3, 3, 2) and torch.equal(batch, torch.cat(alone))
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_one_generator_serves_a_batch(draw):
    one, again = (draw(4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.shape == (4, 3, 2) and torch.equal(one, again)


def test_ranges():
    assert integers(3, 100, (4,), generators(*range(100))).unique().tolist() == [
        0,
        1,
        2,
    ]
    values = uniform(100, (50,), generators(*range(100)))
    assert 0 <= values.min() and values.max() < 1 and abs(values.mean() - 0.5) < 0.02
    noise = normal(100, (50,), generators(*range(100)), torch.bfloat16)
    assert noise.dtype == torch.bfloat16 and abs(noise.float().std() - 1) < 0.03


def test_generators_must_be_one_a_clip():
    with pytest.raises(ValueError, match="2 generators for a batch of 3 clips"):
        uniform(3, (1,), generators(1, 2))
    assert device_of(generators(1)) == torch.device("cpu")


@pytest.mark.parametrize(
    "sampler",
    [RandomMasking(), InverseBlockMasking(block=(3, 3)), FlexibleBlockMasking()],
    ids=lambda sampler: type(sampler).__name__,
)
def test_masks_do_not_depend_on_the_batch(sampler):
    batch = sampler(3, 4, (64, 8), generators(1, 2, 3)).mask
    alone = [sampler(1, 4, (64, 8), generators(seed)).mask for seed in (1, 2, 3)]
    assert torch.equal(batch, torch.cat(alone))
    assert ((~batch).sum(dim=1) == 102).all()
    assert len({tuple(mask.tolist()) for mask in batch}) == 12
