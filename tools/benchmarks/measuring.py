"""What the benchmarks share: variants, interleaved timing, tables, reports."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from speechbrain.utils.run_opts import RunOptions
from tqdm import tqdm

from benchmarks.clock import CLOCKS, Clock
from benchmarks.floor import DTYPES, Floor, measure_floor
from eat.errors import ExperimentError
from eat.experiment.command_line import require_device
from eat.model.encoder import PRESETS
from eat.model.operations import Operation, gflop
from eat.model.patching import PATCH
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer
from eat.utils.files import write_json
from eat.utils.versions import versions

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Variant:
    """What is measured. Variants that differ in batch or threads share a model."""

    preset: str
    precision: str
    frames: int
    clones: int
    compiled: str  # mode of torch.compile; none if empty
    batch: int
    threads: int

    def __str__(self) -> str:
        words = f"{self.preset} {self.precision} {self.frames} frames"
        words += f" {self.clones} clones" if self.clones else ""
        words += f" batch {self.batch} threads {self.threads}"
        return words + (f" compiled ({self.compiled})" if self.compiled else "")


@dataclass
class Case:
    """A variant with the call to measure, and what was measured, in seconds."""

    variant: Variant
    run: Callable[[], object]
    operations: Sequence[Operation]
    seconds: list[float] = field(default_factory=list)
    floors: list[Floor] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the measurements; multiples are ratios of medians."""
        time, total = median(self.seconds), gflop(self.operations)
        floor = median(f.seconds for f in self.floors)
        strict = total / median(f.linear_gflops for f in self.floors)
        return {
            **asdict(self.variant),
            "seconds": self.seconds,
            "clips_per_second": self.variant.batch / time,
            "gflop": total,
            "gflops": total / time,
            "floor_seconds": floor,
            "strict_floor_seconds": strict,
            "over_floor": time / floor,
            "over_strict_floor": time / strict,
        }


def several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return an argparse type of values that are separated by commas."""

    def parse(text: str) -> list[Any]:
        """Return the values, each once."""
        return list(dict.fromkeys(map(kind, text.split(","))))

    return parse


def name_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return an argparse type of some names."""

    def parse(text: str) -> str:
        """Return the name; refuse any other."""
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} (choose from {list(names)})")
        return text

    return parse


def frames(text: str) -> int:
    """Parse a number of frames, a multiple of the patch size."""
    value = integer(PATCH, 12288)(text)
    if value % PATCH:
        raise argparse.ArgumentTypeError(f"{text} (must be a multiple of {PATCH})")
    return value


def add_variant_options(parser: argparse.ArgumentParser, clones: bool = False) -> None:
    """Add the options of :func:`variants`; each takes several values."""
    add, positive = parser.add_argument, several(integer(1))
    one = "(several: separated by commas, measured in turn)"
    add("--preset", type=several(name_of(PRESETS)), default=["base"], help=one)
    add("--precision", type=several(name_of(DTYPES)), default=["bf16"], help=one)
    add("--frames", type=several(frames), default=[1024], help="of a clip")
    add("--batch", type=positive, default=[1], help="clips per batch")
    threads = [torch.get_num_threads()]
    add("--threads", type=positive, default=threads, help="of the CPU")
    add(
        "--compile",
        nargs="?",
        const=["default"],
        default=[],
        type=several(name_of(COMPILE_MODES)),
        metavar="MODE",
        help=f"measure torch.compile beside eager: {', '.join(COMPILE_MODES)}",
    )
    if clones:
        add("--clones", type=positive, default=[16], help="masks per clip")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help=f"default: {device}")
    busy = "cpu: CPU time over threads, for a machine that is busy with other processes"
    add("--clock", choices=CLOCKS, default="wall", help=busy)
    add("--repeats", type=integer(1), default=5, help="rounds after one to warm up")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of :func:`write_report`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def variants(options: argparse.Namespace) -> list[Variant]:
    """Return all combinations of the options.

    Raises `ExperimentError` if the device is missing or lacks a precision.
    """
    require_device(RunOptions(device=options.device), options.precision)
    grid = product(
        *(options.preset, options.precision, options.frames),
        getattr(options, "clones", [0]),
        ["", *options.compile],
        *(options.batch, options.threads),
    )
    return [Variant(*values) for values in grid]


def measure(cases: Sequence[Case], repeats: int, clock: Clock) -> None:
    """Measure floor and time of all cases in turn, after a round to warm up."""
    rounds = [(number, case) for number in range(repeats + 1) for case in cases]
    for number, case in tqdm(rounds, unit="measurement", leave=False, disable=None):
        torch.set_num_threads(case.variant.threads)
        if not number:
            case.run()
            continue
        dtype = DTYPES[case.variant.precision]
        case.floors.append(measure_floor(case.operations, dtype, clock))
        case.seconds.append(clock.time(case.run))


def peak_mb(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the memory of the parent before `exec`
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def time_table(records: Sequence[Mapping[str, Any]], name: str = "variant") -> str:
    """Return times and their multiples of the floor as a table."""
    rows = [
        {
            name: row["variant"],
            "min s": min(row["seconds"]),
            "median s": median(row["seconds"]),
            "max s": max(row["seconds"]),
            "clips/s": row["clips_per_second"],
            "GFLOP/s": round(row["gflops"], 1),
            "floor s": row["floor_seconds"],
            "x floor": round(row["over_floor"], 2),
            "x strict": round(row["over_strict_floor"], 2),
            "peak MB": round(row["peak_mb"]) if "peak_mb" in row else None,
        }
        for row in records
    ]
    return markdown_table(rows, list(rows[0]))


def share_table(records: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return a table of milliseconds and shares by part, a column per variant."""
    parts = list(dict.fromkeys(part for row in records for part in row[key]))
    parts.sort(key=lambda part: -records[0][key].get(part, 0.0))
    table = []
    for part in parts:
        line: dict[str, Any] = {key: part}
        for row in records:
            spent, total = row[key].get(part, 0.0), sum(row[key].values())
            line[row["variant"]] = f"{spent:.1f} ms, {spent / total:.1%}"
        table.append(line)
    return markdown_table(table, list(table[0]))


def machine() -> dict[str, Any]:
    """Return what was measured on."""
    cpu, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        named = (value.strip() for key, _, value in lines if "model name" in key)
        cpu = next(named, cpu)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    cores = len(psutil.Process().cpu_affinity() or []) or os.cpu_count()
    return {"cpu": cpu, "cores": cores, "memory_gb": memory, "gpus": gpus}


def require_new(path: Path | None) -> None:
    """Raise `ExperimentError` if a report would replace a file, or has no folder."""
    if path is None:
        return
    if path.exists():
        raise ExperimentError(f"--json {path}: exists (remove it or give another)")
    if not path.parent.is_dir():
        raise ExperimentError(f"--json {path}: no such folder (create it first)")


def write_report(path: Path | None, command: str, results: object) -> None:
    """Write results with the command, versions (with the revision) and machine."""
    if path is not None:
        report = {"command": command, "versions": versions(), "machine": machine()}
        write_json(path, {**report, "results": results})
