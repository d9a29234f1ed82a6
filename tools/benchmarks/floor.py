"""The floor of a step: its own matrix products and convolutions, run in isolation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.clock import Clock
from eat.model.operations import WEIGHTS, Convolution, Operation, Product, gflop

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TRIALS = 3
SECONDS = 0.002  # of a trial, at least
Passes = list[Callable[[], object]]


@dataclass(frozen=True)
class Floor:
    """Time of the operations alone, and the rate of those of linear layers."""

    seconds: float
    linear_gflops: float


def measure_floor(
    operations: Sequence[Operation], dtype: torch.dtype, clock: Clock
) -> Floor:
    """Time each pass of each shape by itself, and add up by their counts.

    Each time is the minimum of a few trials, with the operands in the cache as far as
    they fit: a real step cannot be faster.
    """
    counts: Counter[Operation] = Counter()
    for operation in operations:
        counts[replace(operation, count=1)] += operation.count
    total = linear = linear_gflop = 0.0
    for operation, count in counts.items():
        seconds = count * sum(
            fastest(run, clock) for run in passes(operation, dtype, clock.device)
        )
        total += seconds
        if isinstance(operation, Product) and operation.batch == 1:
            linear += seconds
            linear_gflop += count * gflop([operation])
    return Floor(total, linear_gflop / linear)


def passes(operation: Operation, dtype: torch.dtype, device: torch.device) -> Passes:
    """Return the forward pass, then those of the gradients that are computed."""

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape, device=device).uniform_(-1, 1).to(dtype)

    if isinstance(operation, Convolution):
        return _convolution_passes(operation, draw)
    shape = (operation.batch,) * (operation.batch > 1)
    x = draw(*shape, operation.rows, operation.inner)
    weight = draw(*shape, operation.columns, operation.inner)  # as torch keeps it
    grad = draw(*shape, operation.rows, operation.columns)
    runs: Passes = [lambda: x @ weight.mT, lambda: grad.mT @ x, lambda: grad @ weight]
    return runs[: 1 + operation.gradients]


def _convolution_passes(layer: Convolution, draw: Callable[..., Tensor]) -> Passes:
    # A permuted view of [B, H, W, D] memory is NCHW in channels-last format.
    x = draw(layer.rows, *layer.grid, layer.in_channels).permute(0, 3, 1, 2)
    grad = draw(layer.rows, *layer.grid, layer.out_channels).permute(0, 3, 1, 2)
    channels = layer.in_channels // layer.groups
    weight = draw(layer.out_channels, channels, layer.kernel, layer.kernel)
    padding = layer.kernel // 2

    def forward() -> Tensor:
        return F.conv2d(x, weight, padding=padding, groups=layer.groups)

    def backward() -> object:
        wanted = [layer.gradients > WEIGHTS, True, False]
        sizes = ([1, 1], [padding, padding], [1, 1], False, [0, 0], layer.groups)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, *sizes, wanted
        )

    return [forward, backward] if layer.gradients else [forward]


def fastest(run: Callable[[], object], clock: Clock) -> float:
    """Return the shortest time of a call over a few trials, after one to warm up."""
    with torch.no_grad():
        run()
        number = max(1, round(SECONDS / clock.time(run)))
        return min(clock.time(run, number) for _ in range(TRIALS))
