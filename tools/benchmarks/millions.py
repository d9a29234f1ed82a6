"""Train on a simulated corpus of two million clips: start, memory, resume.

    python tools/benchmarks/millions.py [--clips 2000000] [--steps 1000]
                                      [--write FILE.json]

The manifest lists the clips of a few tar shards many times, each time with another id.
Two ranks with two data workers each pre-train and fine-tune (weighted sampling) on it,
with the mini settings; they are killed after half of the steps and resumed. The script
reports the seconds until the first steps after each start, and for every process the
peak memory and its growth over the last quarter of the steps. It fails above
LIMIT_SECONDS or LIMIT_MB of growth. Linux only.

A data worker's memory grows over the first hundreds of steps and then stays constant.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import psutil
from tqdm import tqdm

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import ManifestRow, write_manifest
from eat.errors import EATError, exit_on_error
from eat.report.markdown import markdown_table
from eat.utils.arguments import integer
from eat.utils.files import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import kills  # noqa: E402
from benchmarks.kills import RECIPE, ROOT  # noqa: E402
from mini_corpora.audioset import AudioSetSizes  # noqa: E402

CLIPS_ON_DISK = 400
MANIFESTS = ("pretrain", "eval")
LOG_INTERVAL, CKPT_INTERVAL = 10, 50  # steps
POLL_SECONDS = 0.5
LIMIT_SECONDS, LIMIT_MB = 60, 50
COMMON = (
    "--corpus shards --train_manifest pretrain --number_of_epochs 1 --num_workers 2"
)
BATCH = 24  # on each of two ranks
TRAININGS = {
    "pre-training": ("pretrain_mini.yaml", "--clones 2"),
    "fine-tuning": ("finetune_mini.yaml", "--pretrained none"),
}
Memory = dict[str, list[tuple[int, float]]]  # (step, peak in MiB) by process


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
    packed = CompactManifest(shards / "pretrain.csv")
    wavs = (wav.removeprefix("$data_root/") for wav in packed.wavs)
    labels = (tuple(joined.split(";")) for joined in packed.labels)
    many = enumerate(islice(cycle(zip(wavs, labels, strict=True)), clips))
    rows = (ManifestRow(f"Y{i:010d}", 2.56, *clip) for i, clip in many)
    write_manifest(shards / "pretrain.csv", rows)
    return shards


def command(training: str, shards: Path, run: Path, clips: int) -> list[str]:
    """Return the command line that starts and resumes a run."""
    yaml, options = TRAININGS[training]
    clips_per_epoch = clips // 2
    if training == "fine-tuning":
        clips_per_epoch = min(clips_per_epoch, 200_000)
        options += f" --weighted_draws {clips_per_epoch}"
    settings = {
        "data_folder": shards,
        "manifest_folder": shards,
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
                    sample = steps[-1], peak_mb(member.pid)
                    memory[f"{name} ({member.pid})"].append(sample)
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            kills.kill_all(process)
    return time.monotonic() - started if first is None else first, steps[0]


def peak_mb(pid: int) -> float:
    """Return the peak memory of a process as the kernel counts it, in MiB."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise psutil.NoSuchProcess(pid)


def growth(samples: list[tuple[int, float]], after: int) -> float:
    """Return the growth of a process's peak memory after a step."""
    before = [peak for step, peak in samples if step <= after]
    return samples[-1][1] - before[-1]


def simulate(training: str, shards: Path, run: Path, clips: int, steps: int) -> dict:
    """Train, kill and resume; return seconds and memory."""
    run.mkdir()
    words, ckpt_step = command(training, shards, run, clips), steps // 2
    started: Memory = defaultdict(list)
    resumed: Memory = defaultdict(list)
    # A little further than the checkpoint, so that it is complete.
    until = ckpt_step + 2 * LOG_INTERVAL
    start_seconds, _ = train_until(until, words, run, started)
    resume_seconds, step = train_until(steps, words, run, resumed)
    if step != ckpt_step + LOG_INTERVAL:
        raise EATError(f"{training}: resumed at step {step}, not after {ckpt_step}")
    memory = [
        {
            "process": name.rsplit(" (", 1)[0],
            "peak_mb": round(samples[-1][1]),
            "growth_mb": round(growth(samples, after=steps * 3 // 4), 1),
        }
        for name, samples in sorted(resumed.items())
        if samples[-1][0] >= steps - LOG_INTERVAL  # not those that exited early
    ]
    seconds = {"start_seconds": start_seconds, "resume_seconds": resume_seconds}
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    return {"training": training, "steps": steps, **seconds, "memory": memory}


def above_limits(metrics: dict) -> Iterator[str]:
    """Yield one line for each exceeded limit."""
    name = metrics["training"]
    for key in ("start_seconds", "resume_seconds"):
        if metrics[key] > LIMIT_SECONDS:
            yield f"{name}: {key} {metrics[key]}"
    for row in metrics["memory"]:
        if row["growth_mb"] > LIMIT_MB:
            yield f"{name}: {row['process']} grew by {row['growth_mb']} MB"


@exit_on_error()
def main() -> None:
    """Simulate both trainings; print tables and write the metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=integer(1), default=2_000_000)
    parser.add_argument("--steps", type=integer(1), default=1000)
    parser.add_argument("--write", type=Path, help="JSON file for the metrics")
    options = parser.parse_args()
    if options.steps % (2 * CKPT_INTERVAL):
        parser.error(f"--steps: must be a multiple of {2 * CKPT_INTERVAL}")
    with tempfile.TemporaryDirectory() as folder:
        shards = make_corpus(Path(folder), options.clips)
        sizes = options.clips, options.steps
        found = [
            simulate(training, shards, Path(folder) / training, *sizes)
            for training in tqdm(TRAININGS, unit="training", disable=None)
        ]
    for metrics in found:
        print("  ".join(f"{k} {v}" for k, v in metrics.items() if k != "memory"))
        print(markdown_table(metrics["memory"], list(metrics["memory"][0])))
    if options.write:
        write_json(options.write, {"clips": options.clips, "trainings": found})
    if exceeded := [line for metrics in found for line in above_limits(metrics)]:
        raise EATError("; ".join(exceeded))


if __name__ == "__main__":
    main()
