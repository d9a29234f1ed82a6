"""Peak memory by batch, in processes of their own, and the largest batch that fits."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch
from tqdm import tqdm

from benchmarks.measuring import Variant, variants, write_report
from benchmarks.training import TASKS, peak_of
from eat.errors import EATError, ExperimentError
from eat.report.markdown import markdown_table
from eat.utils.arguments import number

POLL_SECONDS = 0.1
MIB_PER_GB = 1e9 / 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    add("--task", choices=TASKS, default="step", help="pre-training or fine-tuning")
    add(
        "--find_batch",
        action="store_true",
        help="find the largest batch that fits, from the first --batch on",
    )
    of = "memory to fit into; a GPU's own by default"
    add("--limit", type=number(0.1, 100_000), metavar="GB", help=of)


def measured(task: str, variant: Variant, device: str, limit: float) -> float | None:
    """Return the peak memory in MiB; None if it is more than `limit` or there is.

    A process whose memory exceeds the limit is ended, before the machine has none left.
    """
    spawn = multiprocessing.get_context("spawn")
    receive, send = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure, args=(send, task, variant, device))
    process.start()
    send.close()
    on_cpu = torch.device(device).type == "cpu"
    while process.is_alive() and not receive.poll(POLL_SECONDS):
        if on_cpu and _resident_mb(process.pid) > limit:
            process.kill()
    try:
        peak = receive.recv()
    except EOFError:  # killed, by this or by the system
        peak = None
    process.join()
    if isinstance(peak, str):
        raise EATError(f"{variant}: {peak}")
    return None if peak is None or peak > limit else peak


def _resident_mb(pid: int | None) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.Error:  # it has ended
        return 0.0


def _measure(send: Connection, task: str, variant: Variant, device: str) -> None:
    """Send the peak memory, None if there is not enough, or another error's text."""
    try:
        send.send(peak_of(task, variant, device))
    except torch.cuda.OutOfMemoryError:
        send.send(None)
    except Exception as error:
        send.send(f"{type(error).__name__}, {error}".splitlines()[0])


def largest(fits: Callable[[int], bool], start: int) -> int:
    """Return the largest number that fits, 0 if not even `start` does.

    It is doubled until it does not fit, then bisected.
    """
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    while low and high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def run(options: argparse.Namespace, command: str) -> None:
    """Measure all variants; print a table, write the report."""
    wanted, device = variants(options), options.device
    on_cpu = torch.device(device).type == "cpu"
    if options.find_batch and on_cpu and options.limit is None:
        raise ExperimentError("--find_batch: needs --limit GB on a CPU")
    limit = float("inf") if options.limit is None else options.limit * MIB_PER_GB
    if options.task == "finetune":
        wanted = list(dict.fromkeys(replace(variant, clones=0) for variant in wanted))
    records: list[dict[str, Any]] = []
    if options.find_batch:
        for base in dict.fromkeys(replace(v, batch=options.batch[0]) for v in wanted):
            records += find_batch(base, options.task, device, limit)
    else:
        for variant in tqdm(wanted, unit="variant", leave=False, disable=None):
            peak = measured(options.task, variant, device, limit)
            records.append(
                {"variant": str(variant), **asdict(variant), "peak_mb": peak}
            )
    print(markdown_table(table(records), ["variant", "peak MB", "MB per further clip"]))
    write_report(options.json, command, records)


def find_batch(
    base: Variant, task: str, device: str, limit: float
) -> list[dict[str, Any]]:
    """Return the peak memory of all batches that were tried, and print the largest."""
    records = []

    def fits(batch: int) -> bool:
        variant = replace(base, batch=batch)
        peak = measured(task, variant, device, limit)
        records.append({"variant": str(variant), **asdict(variant), "peak_mb": peak})
        return peak is not None

    best = largest(fits, base.batch)
    found = f"the largest batch that fits is {best}" if best else "none fits"
    print(f"{base}: {found}")
    return sorted(records, key=lambda record: record["batch"])


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, with the slope from the first batch of the same variant."""
    rows: list[dict[str, Any]] = []
    first: dict[str, tuple[int, float]] = {}
    for record in records:
        peak, batch = record["peak_mb"], record["batch"]
        row = {"variant": record["variant"], "peak MB": "does not fit"}
        key = str({**record, "variant": "", "batch": 0, "peak_mb": 0})
        if peak is not None:
            row["peak MB"] = round(peak)
            least, lowest = first.setdefault(key, (batch, peak))
            if batch > least:
                row["MB per further clip"] = round((peak - lowest) / (batch - least))
        rows.append(row)
    return rows
