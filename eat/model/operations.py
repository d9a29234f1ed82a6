"""The matrix products and convolutions of a training step, in closed form.

They are nearly all of a step's arithmetic. Their number and shapes give the operations
per clip, and the time below which no implementation of the same network can go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.model.patching import PATCH

INFERENCE = 0  # gradients that are computed besides the forward pass
WEIGHTS = 1  # the layer's input needs none
ALL = 2


@dataclass(frozen=True)
class Product:
    """`batch` matrix products ``[rows, inner] @ [inner, columns]``.

    Attributes
    ----------
    part
        Part of the network.
    count
        How often it occurs: the layers of one shape.
    gradients
        `INFERENCE`, `WEIGHTS` or `ALL`.
    rows, inner, columns
        Shape; `batch` is 1 for a linear layer, clips x heads in attention.
    """

    part: str
    count: int
    gradients: int
    rows: int
    inner: int
    columns: int
    batch: int = 1

    @property
    def flops(self) -> int:
        """Operations of all passes; a multiply-add counts as two."""
        size = self.batch * self.rows * self.inner * self.columns
        return 2 * size * self.count * (1 + self.gradients)


@dataclass(frozen=True)
class Convolution:
    """A grouped convolution over `rows` grids that keeps their size.

    The attributes are those of :class:`Product` and of torch's ``Conv2d``.
    """

    part: str
    count: int
    gradients: int
    rows: int
    grid: tuple[int, int]
    in_channels: int
    out_channels: int
    kernel: int
    groups: int

    @property
    def flops(self) -> int:
        """Operations of all passes; a multiply-add counts as two."""
        taps = self.kernel**2 * self.in_channels // self.groups
        outputs = self.rows * self.grid[0] * self.grid[1] * self.out_channels
        return 2 * taps * outputs * self.count * (1 + self.gradients)


Operation = Product | Convolution


def gflop(operations: Iterable[Operation]) -> float:
    """Return the operations in 1e9."""
    return sum(operation.flops for operation in operations) / 1e9


def encoder_operations(
    encoder: EATEncoder, part: str, clips: int, tokens: int, gradients: int = INFERENCE
) -> list[Operation]:
    """Return the operations of the blocks for `clips` rows of `tokens`, with CLS."""
    dim, heads = encoder.dim, int(encoder.config["num_heads"])
    count = len(encoder.blocks)
    rows, batch = clips * tokens, clips * heads
    linear = ((dim, 3 * dim), (dim, dim), (dim, 4 * dim), (4 * dim, dim))
    attention = ((dim // heads, tokens), (tokens, dim // heads))
    return [
        *(Product(part, count, gradients, rows, *shape) for shape in linear),
        *(
            Product(part, count, gradients, tokens, *shape, batch)
            for shape in attention
        ),
    ]


def embedding_operations(
    encoder: EATEncoder, clips: int, patches: int, gradients: int = INFERENCE
) -> list[Operation]:
    """Return the operation of the patch embedding, whose input needs no gradient."""
    shape = (clips * patches, PATCH**2, encoder.dim)
    return [Product("patch embedding", 1, min(gradients, WEIGHTS), *shape)]


def pretraining_operations(
    encoder: EATEncoder,
    decoder: CNNDecoder,
    grid: tuple[int, int],
    visible: int,
    clones: int,
    clips: int = 1,
) -> list[Operation]:
    """Return the operations of a pre-training step, forward and backward.

    Parameters
    ----------
    encoder, decoder
        The student's networks; the teacher has the encoder's shape.
    grid
        Patches of a clip (time, frequency).
    visible
        Patches that are visible to a clone.
    clones, clips
        Clones per clip, clips of the batch.
    """
    patches, rows = grid[0] * grid[1], clips * clones
    convolutions = [
        Convolution(
            *("decoder convolutions", 1, ALL, rows, grid),
            *(layer.in_channels, layer.out_channels),
            *(layer.kernel_size[0], layer.groups),
        )
        for layer in decoder.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    projected = rows * (patches - visible)  # the masked patches only
    shape = (decoder.proj.in_features, decoder.proj.out_features)
    return [
        *embedding_operations(encoder, clips, patches),  # the teacher's
        *encoder_operations(encoder, "teacher", clips, patches + 1),
        *embedding_operations(encoder, clips, patches, ALL),
        *encoder_operations(encoder, "student", rows, visible + 1, ALL),
        *convolutions,
        Product("decoder projection", 1, ALL, projected, *shape),
    ]


def finetuning_operations(
    encoder: EATEncoder, num_classes: int, grid: tuple[int, int], clips: int = 1
) -> list[Operation]:
    """Return the operations of a fine-tuning step, forward and backward."""
    patches = grid[0] * grid[1]
    return [
        *embedding_operations(encoder, clips, patches, ALL),
        *encoder_operations(encoder, "encoder", clips, patches + 1, ALL),
        Product("head", 1, ALL, clips, encoder.dim, num_classes),
    ]
