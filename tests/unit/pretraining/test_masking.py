"""Masks: exact counts, the official statistics, speed."""

import time

import numpy as np
import pytest
import scipy.ndimage
import torch

from eat.pretraining.masking import (
    FlexibleBlockMasking,
    InverseBlockMasking,
    Masks,
    RandomMasking,
    block_masking,
)

GRID = (64, 8)
SAMPLERS = {
    "mask.block_paper": InverseBlockMasking(0.8, 0.07, (5, 5)),
    "mask.block_large_cfg": InverseBlockMasking(0.75, 0.1, (5, 5)),
    "mask.block_flexible": FlexibleBlockMasking(0.8, 0.07),
    "mask.random_model_path": RandomMasking(0.8),
}


def draw(sampler, batch, clones, seed=0):
    return sampler(batch, clones, GRID, torch.Generator().manual_seed(seed))


def component_sizes(mask):
    """Return the sizes of the 4-connected groups of visible patches."""
    labels, _ = scipy.ndimage.label(mask)
    return np.bincount(labels.flatten())[1:].tolist()


@pytest.mark.parametrize("name", SAMPLERS)
def test_official_statistics(misc_parity, name):
    """Compare 5,000 masks with 5,000 of the official code."""
    expected = misc_parity.numbers[name]
    masks = draw(SAMPLERS[name], 1250, 4)
    kept = (~masks.mask).float().view(-1, *GRID)
    counts = kept.sum(dim=(1, 2))
    assert counts.min() == counts.max() == expected["kept_min"] == expected["kept_max"]
    # Both are estimates; the flexible one has few shapes and is the noisiest.
    corner, center = kept[:, 0, 0].mean().item(), kept[:, 32, 4].mean().item()
    assert corner == pytest.approx(expected["keep_prob_corner"], abs=0.025)
    assert center == pytest.approx(expected["keep_prob_center"], abs=0.025)
    rows = kept.mean(dim=(0, 1))
    torch.testing.assert_close(
        rows, torch.tensor(expected["keep_by_freq_row"]), atol=0.008, rtol=0
    )
    times = kept.mean(dim=(0, 2))[:4]
    torch.testing.assert_close(
        times, torch.tensor(expected["keep_by_time_first4"]), atol=0.015, rtol=0
    )
    sizes = [component_sizes(mask) for mask in kept.numpy()]
    components = sum(map(len, sizes)) / len(sizes)
    singletons = sum(size.count(1) for size in sizes) / len(sizes)
    assert components == pytest.approx(expected["components_per_sample"], rel=0.08)
    assert singletons == pytest.approx(expected["singletons_per_sample"], rel=0.12)


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n.startswith("mask.block")])
def test_official_probability_of_every_patch(misc_parity, name):
    """Every patch is visible as often as in the official code."""
    expected = misc_parity[f"{name}.keep_prob"].float()
    kept = (~draw(SAMPLERS[name], 1250, 4).mask).float().mean(dim=0).view(*GRID)
    torch.testing.assert_close(kept, expected, atol=0.04, rtol=0)
    # The difference is the noise of two estimates (root mean square 1).
    share = 1 / misc_parity.numbers[name]["n"] + 1 / 5000
    noise = (expected * (1 - expected) * share).sqrt()
    assert ((kept - expected) / noise).square().mean().sqrt() < 1.2


@pytest.mark.parametrize("name", SAMPLERS)
def test_indices_match_the_mask(name):
    masks = draw(SAMPLERS[name], 3, 4)
    again = Masks.from_mask(masks.mask)
    assert torch.equal(masks.ids_keep.sort(1).values, again.ids_keep)
    assert torch.equal(masks.ids_mask.sort(1).values, again.ids_mask)


def test_masks_depend_on_the_generator():
    sampler = SAMPLERS["mask.block_paper"]
    first, same, other = (draw(sampler, 2, 3, seed).mask for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_flexible_clones_share_a_shape():
    """With a single block per mask, its shape can be measured."""
    sampler = FlexibleBlockMasking(mask_ratio=1 - 24.5 / 512, adjust=0.0)
    masked = draw(sampler, 60, 8).mask.view(60, 8, *GRID)
    seen = set()
    for clip in ~masked:
        shapes = {largest_block(mask.numpy()) for mask in clip} - {None}
        assert len(shapes) <= 1
        seen |= shapes
    assert seen == {(6, 4), (5, 5), (8, 3)}


def largest_block(mask):
    """Return height and width of the visible patches; None for several groups."""
    if len(component_sizes(mask)) > 1:
        return None
    times, frequencies = np.nonzero(mask)
    return int(np.ptp(times)) + 1, int(np.ptp(frequencies)) + 1


def test_small_grid_keeps_a_block():
    """The official number of blocks is 0 for 64 patches."""
    masks = InverseBlockMasking()(64, 4, (8, 8), torch.Generator().manual_seed(0))
    kept = (~masks.mask).view(-1, 8, 8)
    assert kept.sum((1, 2)).tolist() == [12] * 256
    largest = [max(component_sizes(mask)) for mask in kept.numpy()]
    assert sum(largest) / len(largest) > 7


def test_unequal_rows_are_refused():
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    with pytest.raises(ValueError, match="1 to 2"):
        Masks.from_mask(masks)


def test_speed():
    """Masks of 12 clips x 16 clones take less than 10 ms on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(0)
        times = []
        for _ in range(30):
            start = time.thread_time()  # other processes do not count
            SAMPLERS["mask.block_paper"](12, 16, GRID, generator)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(times) < 0.010


def test_blocks_from_a_command_line():
    """The masks are those of the classes."""
    one, several = block_masking(0.8, 0.07, "5x5"), block_masking(0.8, 0.07, "2x8")
    for sampler, block in ((one, (5, 5)), (several, (2, 8))):
        expected = draw(InverseBlockMasking(0.8, 0.07, block), 3, 4)
        assert torch.equal(draw(sampler, 3, 4).mask, expected.mask)
    mixed = block_masking(0.7, 0.1, "6x4,5x5,8x3")
    expected = draw(FlexibleBlockMasking(0.7, 0.1), 3, 4)
    assert torch.equal(draw(mixed, 3, 4).mask, expected.mask)


@pytest.mark.parametrize(
    "blocks", ["", "5", 5, "5x", "0x5", "5x5,", "5x5 6x4", "5X5", "-1x5"]
)
def test_invalid_blocks_are_refused(blocks):
    with pytest.raises(ValueError, match="6x4,5x5,8x3"):
        block_masking(0.8, 0.07, blocks)
