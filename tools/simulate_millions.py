"""Train on a corpus of two million clips that takes no space: start, memory, resume.

    python tools/simulate_millions.py [--clips 2000000] [--steps 600]
                                      [--write FILE.json]

The manifest names the clips of a few tar shards over and over, each time by another id.
Two processes with two data workers each pre-train and fine-tune (weighted sampling) on
it, with the mini settings; they are killed after half of the steps and started again.
Shown are the seconds until the first step of each start, and of every process the peak
memory and what it grew by while it trained. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
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
from survive_kills import RECIPE, ROOT, kill_all
from tqdm import tqdm

from eat.data.bank import load_bank
from eat.data.manifest import ManifestRow, write_manifest
from eat.data.mini_audioset import AudioSetSizes, write_audioset
from eat.report import markdown_table

CLIPS_ON_DISK = 400
MANIFESTS = ("pretrain", "eval")
LOG_INTERVAL, KEPT_EVERY = 10, 50  # steps
COMMON = (
    "--corpus shards --train_manifest pretrain --number_of_epochs 1 --num_workers 2 "
    f"--log_interval {LOG_INTERVAL} --ckpt_interval_steps {KEPT_EVERY} --noprogressbar "
    "--device cpu --precision fp32 --eval_precision fp32 --distributed_backend gloo"
)
# An epoch passes over all clips: 48 a step, or as many as are drawn.
TRAININGS = {
    "pre-training": ("pretrain_mini", 24, "--clones 2"),
    "fine-tuning": ("finetune_mini", 24, "--pretrained none --weighted_draws"),
}
Memory = dict[str, list[tuple[int, float, float]]]  # (step, MiB, of its own) by process


def make_corpus(folder: Path, clips: int) -> Path:
    """Write shards and a manifest of many clips; returns their folder."""
    corpus, manifests, shards = (folder / n for n in ("mini", "manifests", "shards"))
    corpus.mkdir()
    bank = load_bank(ROOT / "tools" / "bank")
    sizes = AudioSetSizes(CLIPS_ON_DISK - 40, 40, 40)
    write_audioset(bank, corpus, 0, sizes, workers=os.cpu_count())
    sources = [manifests / f"{name}.csv" for name in MANIFESTS]
    for command in (
        [RECIPE / "audioset_prepare.py", corpus, manifests],
        [ROOT / "tools" / "pack_shards.py", *sources, "--data_folder", corpus]
        + ["--output", shards, "--clips_per_shard", "100"],
    ):
        subprocess.run(
            [sys.executable, *command], check=True, capture_output=True, text=True
        )
    path = shards / "pretrain.csv"
    with open(path, encoding="utf-8", newline="") as file:
        held = list(csv.DictReader(file))
    wavs = [row["wav"].removeprefix("$data_root/") for row in held]
    labels = [tuple(row["labels"].split(";")) for row in held]
    many = islice(cycle(zip(wavs, labels, strict=True)), clips)
    write_manifest(
        path, (ManifestRow(f"Y{i:010d}", 2.56, *clip) for i, clip in enumerate(many))
    )
    return shards


def command(training: str, shards: Path, run: Path, clips: int) -> list[str]:
    """The command line that starts and resumes a training."""
    yaml, batch, options = TRAININGS[training]
    drawn = clips
    if training == "fine-tuning":
        drawn = min(clips // 10, 200_000)
        options += f" {drawn}"
    # Some clips are held out from pre-training, to validate on.
    steps = max(drawn - 2 * 2000, drawn // 2) // (2 * batch)
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=2".split()
    folders = ["--data_folder", shards, "--manifest_folder", shards]
    script = [*launcher, "train.py", f"hparams/{yaml}.yaml", *folders]
    sizes = ["--output_folder", run, "--batch_size", batch, "--steps_per_epoch", steps]
    words = [sys.executable, *script, *sizes, *COMMON.split(), *options.split()]
    return [str(word) for word in words]


def last_step(run: Path) -> int:
    """The newest step in a run's log; 0 before the first."""
    with suppress(OSError, IndexError, ValueError):
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return json.loads(lines[-1])["step"]
    return 0


def processes(launcher: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """The processes that train and their data workers, by name."""
    for process in launcher.children():
        with suppress(psutil.Error, KeyError):
            name = f"process {process.environ()['RANK']}"
            yield name, process
            for worker in process.children():
                yield f"{name}, data worker", worker


def train_until(
    step: int, words: list[str], run: Path, memory: Memory
) -> tuple[float, int]:
    """Train until a step is logged, then kill; watch the memory.

    Returns the seconds from the start to the first new line of the log, and its step.
    """
    before, started, first = last_step(run), time.monotonic(), None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(run / "output.txt", "a", encoding="utf-8") as output:
        process = subprocess.Popen(
            words, cwd=RECIPE, env=environment, stdout=output, stderr=output
        )
    with tqdm(total=step, initial=before, unit="step", disable=None) as bar:
        while (now := last_step(run)) < step:
            if process.poll() is not None:
                told = (run / "output.txt").read_text(encoding="utf-8")
                raise RuntimeError(f"a training ended:\n{told[-2000:]}")
            if first is None and now > before:
                first = time.monotonic() - started, now
            bar.update(now - bar.n)
            for name, member in processes(psutil.Process(process.pid)):
                with suppress(psutil.Error):
                    full = member.memory_full_info()
                    figures = full.rss / 2**20, full.uss / 2**20
                    memory[f"{name} ({member.pid})"].append((now, *figures))
            time.sleep(0.5)
    kill_all(process)
    return first


def growth(samples: list[tuple[int, float, float]], steps: range) -> float:
    """What a process grew by from the first half of some steps to the second."""
    middle = (steps.start + steps.stop) // 2
    halves = (range(steps.start, middle), range(middle, steps.stop + 1))
    peaks = [max(own for step, _, own in samples if step in half) for half in halves]
    return peaks[1] - peaks[0]


def simulate(training: str, shards: Path, run: Path, clips: int, steps: int) -> dict:
    """Train, kill, resume; returns seconds and memory."""
    run.mkdir()
    words, kept = command(training, shards, run, clips), steps // 2
    begun, resumed = defaultdict(list), defaultdict(list)
    # A little further than the checkpoint, so that it is there.
    started, _ = train_until(kept + 2 * LOG_INTERVAL, words, run, begun)
    # What was logged after the checkpoint is taken back by the resumed run.
    (run / "metrics.jsonl").rename(run / "metrics_before.jsonl")
    (run / "metrics.jsonl").touch()
    going_on, step = train_until(steps, words, run, resumed)
    if step != kept + LOG_INTERVAL:
        raise RuntimeError(f"{training}: went on at step {step}, not after {kept}")
    memory = [
        {
            "process": name.rsplit(" (", 1)[0],
            "peak_mb": round(max(rss for _, rss, _ in samples)),
            "peak_own_mb": round(max(own for _, _, own in samples)),
            "growth_mb": round(growth(samples, range(kept + LOG_INTERVAL, steps)), 1),
        }
        for name, samples in sorted(resumed.items())
        if samples[-1][0] >= steps - LOG_INTERVAL  # not one that ended while it began
    ]
    seconds = {"start_seconds": round(started, 1), "resume_seconds": round(going_on, 1)}
    return {"training": training, "steps": steps, **seconds, "memory": memory}


def main() -> None:
    """Simulate both trainings, show the tables, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if options.steps % (2 * KEPT_EVERY):
        parser.error(f"--steps: a multiple of {2 * KEPT_EVERY}")
    with tempfile.TemporaryDirectory() as folder:
        shards = make_corpus(Path(folder), options.clips)
        found = [
            simulate(
                training, shards, Path(folder) / training, options.clips, options.steps
            )
            for training in TRAININGS
        ]
    for figures in found:
        print("  ".join(f"{k} {v}" for k, v in figures.items() if k != "memory"))
        print(markdown_table(figures["memory"], list(figures["memory"][0])))
    if options.write:
        figures = {"clips": options.clips, "trainings": found}
        options.write.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
