"""Train on a simulated corpus of 100 million clips: conversion, start, memory, resume.

    python tools/benchmarks/millions.py [--clips 100000000] [--steps 200]
                                      [--folder DIR] [--write FILE.json]

The manifest lists the clips of a few tar shards many times, each time with another id.
It is converted into its Arrow file; an epoch's order is checked for repeated and
missing clips. Two ranks with two data workers each pre-train and fine-tune (weighted
sampling) on it, with the mini settings; they are killed after half of the steps and
resumed. Beside it, the same trainings run on the shards' clips listed once.

The script reports seconds until the first step after each start, and for every process
its largest memory, the growth over the last quarter of the steps, and how much more it
has than on the few clips. Pages of mapped files do not count: the memory of a rank is
the kernel's RssAnon, that of a worker Private_Dirty, as it shares the rest with its
rank. It fails above the limits. 100 million clips take 19 GB of disk. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from eat.data.compact_manifest import CompactManifest
from eat.data.samplers import EpochSampler, RankBatches
from eat.errors import EATError, exit_on_error
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer
from eat.utils.files import atomic_open, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import kills  # noqa: E402
from benchmarks.kills import RECIPE, ROOT  # noqa: E402
from mini_corpora.audioset import AudioSetSizes  # noqa: E402

CLIPS_ON_DISK = 400
MANIFESTS = ("pretrain", "eval")
MANY, FEW = "many", "pretrain"
LOG_INTERVAL, CKPT_INTERVAL = 1, 50  # steps
POLL_SECONDS = 0.25
# Over the training on few clips: seconds of a start, MB of a rank and of a data worker.
LIMITS = {"start": 10, "rank": 300, "worker": 50}
LIMIT_GROWTH = 50  # MB
COMMON = "--corpus shards --number_of_epochs 1 --num_workers 2"
BATCH = 24  # on each of two ranks
CHUNK = 2**20  # clips of the order at a time
TRAININGS = {
    "pre-training": ("pretrain_mini.yaml", "--clones 2"),
    "fine-tuning": ("finetune_mini.yaml", "--pretrained none"),
}
Memory = dict[str, list[tuple[int, float]]]  # (step, MiB) by process


def make_corpus(folder: Path, clips: int) -> Path:
    """Write shards and a manifest of many clips; return their folder."""
    manifests, shards = folder / "manifests", folder / "shards"
    corpus = kills.mini_audioset(folder, AudioSetSizes(CLIPS_ON_DISK - 40, 40, 40))
    sources = [manifests / f"{name}.csv" for name in MANIFESTS]
    prepare = [RECIPE / "audioset_prepare.py", corpus, manifests]
    pack = [ROOT / "tools" / "pack_shards.py", *sources, "--data_folder", corpus]
    pack += ["--output", shards, "--clips_per_shard", "100"]
    for words in (prepare, pack):
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
    packed = (shards / f"{FEW}.csv").read_text().splitlines()
    header, rows = packed[0], [line.partition(",")[2] for line in packed[1:]]
    numbered = enumerate(islice(cycle(rows), clips))
    with atomic_open(shards / f"{MANY}.csv") as file:
        file.write(f"{header}\n")
        file.writelines(f"Y{i:010d},{row}\n" for i, row in numbered)
    return shards


def convert(path: Path) -> dict[str, float]:
    """Convert a manifest in a process of its own, then open it; return the costs."""
    process = multiprocessing.get_context("fork").Process(
        target=CompactManifest, args=[path]
    )
    started = time.monotonic()
    process.start()
    memory = [anonymous_mb(process.pid or 0)]
    while process.is_alive():
        with suppress(psutil.Error):
            memory.append(anonymous_mb(process.pid or 0))
        process.join(POLL_SECONDS)
    if process.exitcode:
        raise EATError(f"{path}: not converted (see above)")
    converted = time.monotonic()
    CompactManifest(path)
    return {
        "csv_gb": round(path.stat().st_size / 1e9, 2),
        "arrow_gb": round(path.with_name(f"{path.name}.arrow").stat().st_size / 1e9, 2),
        "seconds": round(converted - started, 1),
        "peak_mb": round(max(memory) - memory[0], 1),
        "open_seconds": round(time.monotonic() - converted, 3),
    }


def check_order(clips: int) -> dict[str, float]:
    """Go through an epoch, and resume in its middle; return seconds and clips seen.

    Raises `EATError` if a clip is missing, and so another repeated, or if the resumed
    epoch has other clips.
    """
    started, sampler = time.monotonic(), EpochSampler(clips, clips, seed=0)
    seen = np.zeros(clips, dtype=bool)
    middle = RankBatches(sampler, BATCH, rank=1, world_size=2)
    middle.start_from(batch := len(middle) // 2)
    wanted, position = next(iter(middle)), (2 * batch + 1) * BATCH
    for start in tqdm(range(0, clips, CHUNK), "order", disable=None):
        part = sampler.part(start, min(start + CHUNK + BATCH, clips))
        seen[part[:CHUNK]] = True
        if start <= position < start + CHUNK:
            offset = position - start
            if part[offset : offset + BATCH].tolist() != wanted:
                raise EATError(f"batch {batch}: other clips in the resumed epoch")
    if not seen.all():
        raise EATError(f"order of {clips} clips: {clips - seen.sum()} are missing")
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, "different_clips": int(seen.sum())}


def command(
    training: str, shards: Path, run: Path, clips: int, manifest: str
) -> list[str]:
    """Return the command line that starts and resumes a run."""
    yaml, options = TRAININGS[training]
    clips_per_epoch = clips // 2
    if training == "fine-tuning" and manifest == MANY:
        clips_per_epoch = min(clips_per_epoch, 200_000)
        options += f" --weighted_draws {clips_per_epoch}"
    settings = {
        "data_folder": shards,
        "manifest_folder": shards,
        "train_manifest": manifest,
        "batch_size": BATCH,
        "steps_per_epoch": clips_per_epoch // (2 * BATCH),
        "log_interval": LOG_INTERVAL,
        "ckpt_interval_steps": CKPT_INTERVAL,
    }
    return kills.train_command(run, yaml, f"{COMMON} {options}", 2, **settings)


def logged_steps(run: Path) -> list[int]:
    """Return the steps in a run's log; 0 before the first."""
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    complete = text[: text.rfind("\n") + 1].splitlines()
    return [json.loads(line)["step"] for line in complete] or [0]


def processes(launcher: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the ranks and their data workers with their names."""
    for process in launcher.children():
        with suppress(psutil.Error, KeyError):
            name = f"rank {process.environ()['RANK']}"
            yield name, process
            for worker in process.children():
                yield f"{name}, data worker", worker


def train_until(
    step: int, words: list[str], run: Path, memory: Memory
) -> tuple[float, int]:
    """Train until a step is in a new log, recording the memory, then kill the run.

    Return the seconds from the start to the first line of the log, and its step.
    """
    (run / "metrics.jsonl").write_text("")
    started = time.monotonic()
    first: float | None = None
    process = kills.start_command(words, run)
    try:
        while (steps := logged_steps(run))[-1] < step:
            if process.poll() is not None:
                raise EATError(f"the run ended, {kills.end_of_output(run)}")
            if first is None and steps[0]:
                first = time.monotonic() - started
            for name, member in processes(psutil.Process(process.pid)):
                with suppress(psutil.Error):
                    measure = own_mb if "worker" in name else anonymous_mb
                    sample = steps[-1], measure(member.pid)
                    memory[f"{name} ({member.pid})"].append(sample)
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            kills.kill_all(process)
    return time.monotonic() - started if first is None else first, steps[0]


def anonymous_mb(pid: int) -> float:
    """Return the memory of a process without that of mapped files, in MiB."""
    return _kernel_mb(pid, "status", "RssAnon")


def own_mb(pid: int) -> float:
    """Return what a process has changed of its memory, in MiB.

    A data worker shares all other pages with its rank, and mapped files with all.
    """
    return _kernel_mb(pid, "smaps_rollup", "Private_Dirty")


def _kernel_mb(pid: int, file: str, field: str) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    raise psutil.NoSuchProcess(pid)


def growth(samples: list[tuple[int, float]], after: int) -> float:
    """Return the growth of the largest memory of a process after a step."""
    before = max(size for step, size in samples if step <= after)
    return max(size for _, size in samples) - before


def simulate(
    training: str, shards: Path, run: Path, clips: int, steps: int, manifest: str = MANY
) -> dict:
    """Train, kill and resume; return seconds and memory."""
    run.mkdir()
    words, ckpt_step = command(training, shards, run, clips, manifest), steps // 2
    started: Memory = defaultdict(list)
    resumed: Memory = defaultdict(list)
    # A little further than the checkpoint, so that it is complete.
    until = ckpt_step + 10 * LOG_INTERVAL
    start_seconds, _ = train_until(until, words, run, started)
    resume_seconds, step = train_until(steps, words, run, resumed)
    if step != ckpt_step + LOG_INTERVAL:
        raise EATError(f"{training}: resumed at step {step}, not after {ckpt_step}")
    memory = [
        {
            "process": name.rsplit(" (", 1)[0],
            "mb": round(max(size for _, size in samples)),
            "growth_mb": round(growth(samples, after=steps * 3 // 4), 1),
        }
        for name, samples in sorted(resumed.items())
        if samples[-1][0] >= steps - 10 * LOG_INTERVAL  # not those that exited early
    ]
    seconds = {"start_seconds": start_seconds, "resume_seconds": resume_seconds}
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    return {"training": training, "steps": steps, **seconds, "memory": memory}


def compare(many: dict, few: dict) -> dict:
    """Return the metrics of a training, with what they exceed those on few clips by."""
    more = {
        f"{key}_more": round(many[key] - few[key], 1)
        for key in ("start_seconds", "resume_seconds")
    }
    pairs = zip(many["memory"], few["memory"], strict=True)
    memory = [{**row, "more_mb": row["mb"] - other["mb"]} for row, other in pairs]
    return {**many, **more, "memory": memory}


def above_limits(metrics: dict) -> Iterator[str]:
    """Yield one line for each exceeded limit."""
    name = metrics["training"]
    for key in ("start_seconds_more", "resume_seconds_more"):
        if metrics[key] > LIMITS["start"]:
            yield f"{name}: {key} {metrics[key]}"
    for row in metrics["memory"]:
        kind = "worker" if "worker" in row["process"] else "rank"
        if row["growth_mb"] > LIMIT_GROWTH or row["more_mb"] > LIMITS[kind]:
            yield (
                f"{name}: {row['process']} grew by {row['growth_mb']} MB and has "
                f"{row['more_mb']} MB more than with few clips"
            )


@exit_on_error()
def main() -> None:
    """Simulate both trainings; print tables and write the metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=integer(1), default=100_000_000)
    parser.add_argument("--steps", type=integer(1), default=200)
    parser.add_argument("--folder", type=Path, help="where to put the corpus meanwhile")
    parser.add_argument("--write", type=Path, help="JSON file for the metrics")
    options = parser.parse_args()
    if options.steps % (2 * CKPT_INTERVAL):
        parser.error(f"--steps: must be a multiple of {2 * CKPT_INTERVAL}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shards = make_corpus(Path(folder), options.clips)
        found: dict = {"clips": options.clips, "trainings": []}
        found["conversion"] = convert(shards / f"{MANY}.csv")
        found["order"] = check_order(options.clips)
        for training in tqdm(TRAININGS, unit="training", disable=None):
            many, few = (
                simulate(
                    training,
                    shards,
                    Path(folder) / f"{training} {name}",
                    options.clips,
                    options.steps,
                    name,
                )
                for name in (MANY, FEW)
            )
            found["trainings"].append(compare(many, few))
    for name in ("conversion", "order"):
        print(name, "  ".join(f"{k} {v}" for k, v in found[name].items()))
    for metrics in found["trainings"]:
        print("  ".join(f"{k} {v}" for k, v in metrics.items() if k != "memory"))
        print(markdown_table(metrics["memory"], list(metrics["memory"][0])))
    if options.write:
        write_json(options.write, found)
    lines = [line for row in found["trainings"] for line in above_limits(row)]
    if lines:
        raise EATError("; ".join(lines))


if __name__ == "__main__":
    main()
