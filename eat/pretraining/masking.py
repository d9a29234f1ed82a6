"""Multi-masks: which patches each of a clip's K clones loses (paper section 3.2).

Every sampler draws all masks of a batch at once, on the device of the given generator
(or of the clips' own generators), and keeps exactly the same number of patches in each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
        `[B*K, N]` bool, true where a patch is mask.
    ids_keep
        `[B*K, V]` indices of the kept patches.
    ids_mask
        `[B*K, N-V]` indices of the mask patches.
    """

    mask: Tensor
    ids_keep: Tensor
    ids_mask: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> Masks:
        """Build from `[B*K, N]` bool or uint8, 1 = mask.

        Raises
        ------
        ValueError
            If the rows do not all remove the same number of patches.
        """
        mask = mask.bool()
        counts = mask.sum(dim=1)
        if (counts != counts[0]).any():
            raise ValueError(
                f"masks remove {int(counts.min())} to {int(counts.max())} patches: "
                "every row must remove the same number"
            )
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        num_visible = mask.shape[1] - int(counts[0])
        return cls(mask, order[:, :num_visible], order[:, num_visible:])

    @classmethod
    def keep_highest(cls, scores: Tensor, num_visible: int) -> Masks:
        """Keep the `num_visible` highest scoring patches of each row of `[B*K, N]`."""
        order = scores.argsort(dim=1, descending=True)
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
    """Patches a mask leaves: 102 of 512 at ratio 0.8, truncated as officially."""
    return int(num_patches * (1 - mask_ratio))


class RandomMasking:
    """Remove patches uniformly at random.

    Parameters
    ----------
    mask_ratio
        Share of patches to remove.
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
    """Inverse block masking, each clip with a block shape drawn from a list.

    Blocks of kept patches are painted around uniformly drawn centers (clamped at the
    borders); single patches are then dropped or added at random until the count is
    exact. The K clones of a clip share the block shape.

    Parameters
    ----------
    mask_ratio
        Share of patches to remove.
    adjust
        Added to the kept share when counting blocks, since blocks overlap.
    blocks
        Block shapes (time, frequency) in patches.
    offset
        Cells of a block before its center, (time, frequency). The default is the
        official code's, which leaves blocks other than 5 x 5 off-center.
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
        self.offset = offset

    def __call__(
        self, batch: int, clones: int, grid: tuple[int, int], generator: Generators
    ) -> Masks:
        """Draw ``batch * clones`` masks over a (time, frequency) grid."""
        height, width = grid
        shape = integers(len(self.blocks), batch, (1,), generator)
        shape = shape.expand(batch, clones).flatten()
        # One center count for all rows keeps tensors rectangular; the shapes of a
        # flexible set have nearly equal areas.
        num_centers = self._num_blocks(height * width)
        centers = integers(
            height * width, batch, (clones, num_centers, 1), generator
        ).flatten(0, 1)
        cells = self._block_cells().to(centers.device)[shape][:, None]  # [B*K, 1, A, 2]
        time = (centers // width + cells[..., 0]).clamp(0, height - 1)
        frequency = (centers % width + cells[..., 1]).clamp(0, width - 1)
        painted = (time * width + frequency).flatten(1)
        # Painted patches rank above all others and ties break at random: too many
        # are thinned out, too few are filled up, both uniformly.
        scores = uniform(batch, (clones, height * width), generator).flatten(0, 1)
        scores += torch.zeros_like(scores).scatter_(1, painted, 1.0)
        return Masks.keep_highest(scores, num_visible(height * width, self.mask_ratio))

    def _num_blocks(self, num_patches: int) -> int:
        area = max(height * width for height, width in self.blocks)
        share = 1 - self.mask_ratio + self.adjust
        # At least one: on a small grid the official rule gives none, that is
        # uniform masks in place of blocks.
        return max(1, int(num_patches * (share / area)))

    def _block_cells(self) -> Tensor:
        """Cells of each block shape relative to its center `[shapes, A, 2]`."""
        area = max(height * width for height, width in self.blocks)
        tables = []
        for height, width in self.blocks:
            table = torch.cartesian_prod(torch.arange(height), torch.arange(width))
            table = table - torch.tensor(self.offset)
            # Smaller shapes repeat their first cell to fill the table.
            tables.append(torch.cat([table, table[:1].expand(area - len(table), 2)]))
        return torch.stack(tables)


class InverseBlockMasking(FlexibleBlockMasking):
    """Inverse block masking with one block shape: EAT's masks.

    Parameters
    ----------
    mask_ratio
        Share of patches to remove.
    adjust
        Added to the kept share when counting blocks, since blocks overlap.
    block
        Block shape (time, frequency) in patches.
    """

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
    """Inverse block masking from a text, as a command line gives it.

    Parameters
    ----------
    mask_ratio, adjust
        As above.
    blocks
        ``5x5``: every block of this shape (time x frequency, in patches); several,
        ``6x4,5x5,8x3``: each clip with one of them.

    Raises
    ------
    ValueError
        If the text is not such a list.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", str(blocks)):
        raise ValueError(f"blocks {blocks!r}: write 5x5, or several as 6x4,5x5,8x3")
    shapes = tuple(tuple(map(int, shape.split("x"))) for shape in blocks.split(","))
    if len(shapes) == 1:
        return InverseBlockMasking(mask_ratio, adjust, shapes[0])
    return FlexibleBlockMasking(mask_ratio, adjust, shapes)
