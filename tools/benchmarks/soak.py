"""Train for minutes and fail if anything grows that should not.

    python tools/benchmarks/soak.py [--minutes 5] [--json FILE.json]

The mini settings pre-train and fine-tune on a mini AudioSet, with data workers, many
short epochs with an evaluation each, and checkpoints. Every half second the script
looks at the anonymous and the shared memory, the open files and the threads of the run
and of its data workers, and at the run's logs, files and temporary files. After the
first third of the time, which is the warm-up, the medians of the second and the last
third may differ by the BOUNDS only. Linux only.

Anonymous memory is what the kernel calls RssAnon. It is not the private memory (USS):
that of a run falls from 470 to 80 MB whenever its forked data workers share its pages.
It needs the warm-up and a bound above zero: glibc's malloc keeps freed blocks of the
batches' size for hundreds of steps until it has enough of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from tqdm import tqdm

from eat.errors import EATError, exit_on_error
from eat.report.markdown import markdown_table
from eat.utils.arguments import number
from eat.utils.files import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import kills  # noqa: E402
from benchmarks.millions import logged_steps  # noqa: E402
from mini_corpora.audioset import AudioSetSizes  # noqa: E402

POLL_SECONDS = 0.5
STOP_SECONDS = 30  # from SIGTERM to the end
MIN_SAMPLES = 9
LENGTH = (
    "--number_of_epochs 100000 --steps_per_epoch 30 --batch_size 8 --num_workers 2 "
    "--log_interval 5 --ckpt_interval_steps 10"
)
TRAININGS = {
    "pre-training": (
        "pretrain_mini.yaml",
        "--clones 2 --held_out 0.2 --keep_epoch_models False",
    ),
    "fine-tuning": ("finetune_mini.yaml", "--pretrained none"),
}
LOGS = ("log.txt", "metrics.jsonl", "train_log.txt", "output.txt")
# Growth from the second to the last third of the time; a checkpoint has ten files.
BOUNDS = {
    "main, memory MB": 40.0,
    "main, shared MB": 32.0,
    "main, open files": 8.0,
    "main, threads": 4.0,
    "worker, memory MB": 40.0,
    "worker, shared MB": 32.0,
    "worker, open files": 8.0,
    "worker, threads": 4.0,
    "data workers": 2.0,
    "files of the run": 16.0,
    "temporary files": 4.0,
    "log bytes per step": 50.0,
}
Sample = dict[str, float]


def process_metrics(role: str, process: psutil.Process) -> Sample:
    """Return what a process uses; empty if it has ended."""
    with suppress(psutil.Error, OSError, KeyError):  # a zombie has no memory
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return {
            f"{role}, memory MB": int(status["RssAnon"].split()[0]) / 1024,
            f"{role}, shared MB": int(status["RssShmem"].split()[0]) / 1024,
            f"{role}, open files": process.num_fds(),
            f"{role}, threads": process.num_threads(),
        }
    return {}


def file_metrics(run: Path, temporary: Path) -> Sample:
    """Return how many files a run has written, and what its logs take."""
    step = logged_steps(run)[-1]
    sizes = [(run / n).stat().st_size for n in LOGS if (run / n).exists()]
    found = {
        "files of the run": sum(len(names) for *_, names in os.walk(run)),
        "temporary files": sum(len(d) + len(f) for _, d, f in os.walk(temporary)),
    }
    return found | ({"log bytes per step": sum(sizes) / step} if step else {})


def sample(main: psutil.Process, run: Path, temporary: Path) -> Sample:
    """Look at a run once; of the data workers, the largest values count."""
    found = process_metrics("main", main) | file_metrics(run, temporary)
    workers: list[psutil.Process] = []
    with suppress(psutil.Error):
        workers = main.children()
    for worker in workers:
        for name, value in process_metrics("worker", worker).items():
            found[name] = max(found.get(name, 0), value)
    return found | {"data workers": len(workers)}


def watch(
    process: subprocess.Popen, run: Path, temporary: Path, seconds: float
) -> list[Sample]:
    """Look at a run from its first logged step on, then end it."""
    main, samples = psutil.Process(process.pid), []
    end = float("inf")
    try:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise EATError(f"the run ended, {kills.end_of_output(run)}")
            if logged_steps(run)[-1]:
                end = min(end, time.monotonic() + seconds)
                samples.append(sample(main, run, temporary))
            time.sleep(POLL_SECONDS)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
    finally:
        if process.poll() is None:
            kills.kill_all(process)
    return samples


def growth(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """Yield for each quantity its medians over the thirds of the time, and the bound.

    Raises EATError if one was hardly ever seen: a check that sees nothing passes.
    """
    third = len(samples) // 3
    for name, bound in BOUNDS.items():
        parts = [samples[third : 2 * third], samples[2 * third :]]
        values = [[s[name] for s in part if name in s] for part in parts]
        if min(map(len, values)) < MIN_SAMPLES / 3:
            raise EATError(f"{name}: too few samples (give more --minutes)")
        middle, last = map(median, values)
        yield {
            "quantity": name,
            "second third": round(middle, 1),
            "last third": round(last, 1),
            "growth": round(last - middle, 1),
            "bound": bound,
        }


def soak(training: str, data: Path, work: Path, seconds: float) -> dict[str, Any]:
    """Train for some time; return steps and growth."""
    yaml, options = TRAININGS[training]
    run, temporary = work / training, work / f"{training}-tmp"
    temporary.mkdir()
    folders = {"data_folder": data, "manifest_folder": work / "manifests"}
    words = kills.train_command(run, yaml, f"{LENGTH} {options}", 1, **folders)
    # All that it writes outside of its folder is counted there.
    process = kills.start_command(["env", f"TMPDIR={temporary}", *words], run)
    samples = watch(process, run, temporary, seconds)
    steps, rows = logged_steps(run)[-1], list(growth(samples))
    return {
        "training": training,
        "seconds": round(seconds),
        "steps": steps,
        "samples": len(samples),
        "growth": rows,
    }


def above_bounds(outcome: dict[str, Any]) -> list[str]:
    """Return one line for each quantity that grew too much."""
    return [
        f"{outcome['training']}: {row['quantity']} grew by {row['growth']}"
        for row in outcome["growth"]
        if row["growth"] > row["bound"]
    ]


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Soak both trainings; print tables, write the outcome, exit 1 on growth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=number(0.01, 100_000), default=5, help="over both trainings"
    )
    parser.add_argument("--json", type=Path, help="JSON file for the outcome")
    options = parser.parse_args(argv)
    seconds, outcomes = options.minutes * 60 / len(TRAININGS), []
    with tempfile.TemporaryDirectory() as folder:
        data = kills.mini_audioset(Path(folder), AudioSetSizes(48, 48, 24))
        for training in tqdm(TRAININGS, unit="training", disable=None):
            outcome = soak(training, data, Path(folder), seconds)
            outcomes.append(outcome)
            print("  ".join(f"{k} {v}" for k, v in outcome.items() if k != "growth"))
            print(markdown_table(outcome["growth"], list(outcome["growth"][0])))
    if options.json:
        write_json(options.json, outcomes)
    if exceeded := [line for outcome in outcomes for line in above_bounds(outcome)]:
        raise EATError("; ".join(exceeded))


if __name__ == "__main__":
    main()
