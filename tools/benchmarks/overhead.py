"""Time and memory of a step apart from its matrix products and convolutions.

They are replaced by filling their outputs. On a CPU without bf16 instructions they hide
the rest, which costs about the same on one that has them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.clock import Clock
from benchmarks.measuring import Variant, peak_mb, variants, write_report
from benchmarks.training import TASKS, make_cases
from eat.errors import ExperimentError
from eat.report.markdown import markdown_table

FILLED = 0.01
WARM_UP = 2  # steps; the optimizer's state appears in the first


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    text = "pre-training or fine-tuning"
    parser.add_argument("--task", choices=TASKS, default="step", help=text)


def replace_products() -> torch.library.Library:
    """Replace the products and convolutions of this process while the result lives.

    Fused attention is not replaced; in bf16 it is not used on a CPU.
    """
    library = torch.library.Library("aten", "IMPL")

    def filled(like: Tensor, *shape: int) -> Tensor:
        return torch.full(shape, FILLED, dtype=like.dtype)

    def mm(a: Tensor, b: Tensor) -> Tensor:
        return filled(a, len(a), b.shape[1])

    def addmm(bias: Tensor, a: Tensor, b: Tensor, beta: int = 1, alpha: int = 1) -> Any:
        return mm(a, b)

    def bmm(a: Tensor, b: Tensor) -> Tensor:
        return filled(a, *a.shape[:2], b.shape[2])

    def convolution(x: Tensor, weight: Tensor, *_: object) -> Tensor:
        patch = weight.shape[2] if x.shape[1] == 1 else 1  # that of the embedding
        size = (len(x), len(weight), x.shape[2] // patch, x.shape[3] // patch)
        y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
        return y.fill_(FILLED)

    def backward(
        grad: Tensor, x: Tensor, weight: Tensor, *rest: Any
    ) -> tuple[Tensor | None, ...]:
        like = (x, weight, weight[:, 0, 0, 0])  # a bias is as long as the weight
        wanted = zip(like, rest[-1], strict=True)
        return tuple(torch.full_like(t, FILLED) if on else None for t, on in wanted)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels are replaced
        for name, kernel in (("mm", mm), ("addmm", addmm), ("bmm", bmm)):
            library.impl(name, kernel, "CPU")
        library.impl("mkldnn_convolution", convolution, "CPU")
        library.impl("convolution_backward", backward, "CPU")
    return library


def measured(task: str, variant: Variant, repeats: int) -> dict[str, Any]:
    """Return the CPU seconds of steps without products, and the peak memory in MiB."""
    torch.set_num_threads(variant.threads)
    clock = Clock(torch.device("cpu"), "cpu")
    with tempfile.TemporaryDirectory() as folder:
        (case,), _ = make_cases(task, [variant], "cpu", Path(folder))
        library = replace_products()
        for _ in range(WARM_UP):
            case.run()
        seconds = [clock.time(case.run) for _ in range(repeats)]
    del library
    return {"seconds": seconds, "peak_mb": peak_mb(torch.device("cpu"))}


def run(options: argparse.Namespace, command: str) -> None:
    """Measure all variants, each in a process of its own; print a table."""
    if options.precision != ["bf16"] or options.device != "cpu" or options.compile:
        raise ExperimentError("overhead: only --precision bf16 --device cpu, eager")
    records = []
    for variant in tqdm(variants(options), unit="variant", leave=False, disable=None):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measured, (options.task, variant, options.repeats))
        records.append({"variant": str(variant), **found})
    rows = [
        {
            "variant": record["variant"],
            "min ms": round(1000 * min(record["seconds"])),
            "max ms": round(1000 * max(record["seconds"])),
            "peak MB": round(record["peak_mb"]),
        }
        for record in records
    ]
    print(markdown_table(rows, list(rows[0])))
    write_report(options.json, command, records)
