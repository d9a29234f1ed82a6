"""Multi-masks: the masked patches of each of a clip's K clones (paper, section 3.2).

A sampler draws all masks of a batch at once, on the device of the given generators, and
never waits for it. All masks have the same number of visible patches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from eat.utils.random import Generators, integers, uniform


@dataclass
class Masks:
    """Masks of B clips x K clones; row ``b * K + k`` is clone k of clip b.

    Attributes
    ----------
    mask
        `[B*K, N]` bool, true where a patch is masked.
    ids_keep
        `[B*K, V]` indices of the visible patches.
    ids_mask
        `[B*K, N-V]` indices of the masked patches.
    """

    mask: Tensor
    ids_keep: Tensor
    ids_mask: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> Masks:
        """Build from `[B*K, N]` bool or uint8, 1 = masked; waits for the device.

        Raises
        ------
        ValueError
            If the rows mask different numbers of patches.
        """
        mask = mask.bool()
        counts = mask.sum(dim=1)
        if (counts != counts[0]).any():
            raise ValueError(
                f"masks: rows mask {int(counts.min())} to {int(counts.max())} patches "
                "(every row must mask the same number)"
            )
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        num_visible = mask.shape[1] - int(counts[0])
        return cls(mask, order[:, :num_visible], order[:, num_visible:])

    @classmethod
    def keep_highest(cls, scores: Tensor, num_visible: int) -> Masks:
        """Keep the `num_visible` highest scoring patches of each row of `[B*K, N]`."""
        # Stable, so that equal scores are kept in the same order on every device.
        order = scores.argsort(dim=1, descending=True, stable=True)
        ids_keep, ids_mask = order[:, :num_visible], order[:, num_visible:]
        mask = torch.ones_like(scores, dtype=torch.bool).scatter_(1, ids_keep, False)
        return cls(mask, ids_keep, ids_mask)


class MaskSampler(Protocol):
    """Anything that draws the masks of a batch."""

    def __call__(
        self, batch: int, clones: int, grid: tuple[int, int], generator: Generators
    ) -> Masks:
        """Draw ``batch * clones`` masks over a (time, frequency) grid."""


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Return how many patches are visible: 102 of 512 at ratio 0.8 (truncated)."""
    return int(num_patches * (1 - mask_ratio))


class RandomMasking:
    """Mask patches uniformly at random.

    Parameters
    ----------
    mask_ratio
        Share of patches to mask.
    """

    def __init__(self, mask_ratio: float = 0.8) -> None:
        self.mask_ratio = mask_ratio

    def __call__(
        self, batch: int, clones: int, grid: tuple[int, int], generator: Generators
    ) -> Masks:
        """Draw ``batch * clones`` masks over a (time, frequency) grid."""
        num_patches = grid[0] * grid[1]
        scores = uniform(batch, (clones, num_patches), generator).flatten(0, 1)
        return Masks.keep_highest(scores, num_visible(num_patches, self.mask_ratio))


class FlexibleBlockMasking:
    """Inverse block masking with a block shape that each clip draws from a list.

    Blocks of visible patches are placed around uniformly drawn centers (clamped at the
    borders); then single patches are masked or made visible at random until the count
    is exact. The K clones of a clip share the block shape.

    Parameters
    ----------
    mask_ratio
        Share of patches to mask.
    adjust
        Added to the visible share when counting blocks, since blocks overlap.
    blocks
        Block shapes (time, frequency) in patches.
    offset
        Cells of a block before its center, (time, frequency). The default is that of
        the official code, which is not centered for blocks other than 5 x 5.
    """

    def __init__(
        self,
        mask_ratio: float = 0.8,
        adjust: float = 0.07,
        blocks: tuple[tuple[int, int], ...] = ((6, 4), (5, 5), (8, 3)),
        offset: tuple[int, int] = (2, 2),
    ) -> None:
        self.mask_ratio = mask_ratio
        self.adjust = adjust
        self.blocks = tuple(tuple(block) for block in blocks)
        self.offset = tuple(offset)

    def __call__(
        self, batch: int, clones: int, grid: tuple[int, int], generator: Generators
    ) -> Masks:
        """Draw ``batch * clones`` masks over a (time, frequency) grid."""
        height, width = grid
        shape = integers(len(self.blocks), batch, (1,), generator)
        shape = shape.expand(batch, clones).flatten()
        # The same number of centers in all rows keeps tensors rectangular; the shapes
        # of a list have nearly equal areas.
        num_centers = self._num_blocks(height * width)
        centers = integers(
            height * width, batch, (clones, num_centers, 1), generator
        ).flatten(0, 1)
        cells = _block_cells(self.blocks, self.offset, centers.device)
        cells = cells[shape][:, None]  # [B*K, 1, A, 2]
        time = (centers // width + cells[..., 0]).clamp(0, height - 1)
        frequency = (centers % width + cells[..., 1]).clamp(0, width - 1)
        visible = (time * width + frequency).flatten(1)
        # Patches in blocks rank above all others, and ties break at random: surplus
        # patches are masked and missing ones made visible, both uniformly.
        scores = uniform(batch, (clones, height * width), generator).flatten(0, 1)
        scores += torch.zeros_like(scores).scatter_(1, visible, 1.0)
        return Masks.keep_highest(scores, num_visible(height * width, self.mask_ratio))

    def _num_blocks(self, num_patches: int) -> int:
        area = max(height * width for height, width in self.blocks)
        share = 1 - self.mask_ratio + self.adjust
        # At least one: on a small grid the official rule gives none, which would make
        # the masks uniform.
        return max(1, int(num_patches * (share / area)))


class InverseBlockMasking(FlexibleBlockMasking):
    """Inverse block masking with one centered block shape, as EAT uses it."""

    def __init__(
        self,
        mask_ratio: float = 0.8,
        adjust: float = 0.07,
        block: tuple[int, int] = (5, 5),
    ) -> None:
        super().__init__(
            mask_ratio, adjust, (block,), offset=(block[0] // 2, block[1] // 2)
        )


def block_masking(mask_ratio: float, adjust: float, blocks: str) -> MaskSampler:
    """Return an inverse block masking from a text, as on a command line.

    Parameters
    ----------
    mask_ratio, adjust
        As above.
    blocks
        A block shape (time x frequency, in patches) such as ``5x5``, or several of
        which each clip draws one, such as ``6x4,5x5,8x3``.

    Raises
    ------
    ValueError
        If the text is not such a list.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", str(blocks)):
        raise ValueError(f"blocks {blocks!r}: must be as 5x5, or as 6x4,5x5,8x3")
    sides = [shape.split("x") for shape in blocks.split(",")]
    shapes = tuple((int(height), int(width)) for height, width in sides)
    if len(shapes) == 1:
        return InverseBlockMasking(mask_ratio, adjust, shapes[0])
    return FlexibleBlockMasking(mask_ratio, adjust, shapes)


@cache
def _block_cells(
    blocks: tuple[tuple[int, ...], ...], offset: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return the cells of each block relative to its center `[shapes, A, 2]`."""
    area = max(height * width for height, width in blocks)
    tables = []
    for height, width in blocks:
        table = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        table = table - torch.tensor(offset)
        # Smaller blocks repeat their first cell up to the largest area.
        tables.append(torch.cat([table, table[:1].expand(area - len(table), 2)]))
    return torch.stack(tables).to(device, non_blocking=True)
