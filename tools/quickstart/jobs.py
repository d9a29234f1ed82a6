"""Training runs as jobs: one process each, with a progress bar, done only once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "AudioSet"
DONE = "job.json"
# Without the instructions bf16 is emulated, some ten times slower than fp32.
HAS_BF16 = torch.cpu._is_avx512_bf16_supported()
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One call of the AudioSet recipe's train.py.

    Attributes
    ----------
    name
        Shown to the user; also the name of the run's folder.
    folder
        The run's folder.
    yaml
        File in the recipe's hparams.
    settings
        Overrides of its keys.
    steps
        Optimiser steps, for the progress bar.
    """

    name: str
    folder: Path
    yaml: str
    settings: dict[str, object]
    steps: int

    @property
    def command(self) -> list[str]:
        """The command line, as a user would type it in the recipe's folder."""
        overrides = {"output_folder": self.folder, **self.settings}
        words = [str(w) for k, v in overrides.items() for w in (f"--{k}", v)]
        # On the CPU everywhere, so that all see the same numbers.
        options = ["--device", "cpu", "--noprogressbar"]
        if not HAS_BF16:
            options += ["--precision", "fp32", "--eval_precision", "fp32"]
        return [sys.executable, "train.py", f"hparams/{self.yaml}", *words, *options]

    def results(self) -> dict:
        """The finished run's results.json."""
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def done(self) -> dict | None:
        """Seconds, peak memory and command of the finished run; None before."""
        try:
            return json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


class JobError(RuntimeError):
    """A training run that failed."""


class Runner:
    """Runs jobs; several threads may call it at once, each with its own bar."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_lines = [0, 1]
        self.children: list[subprocess.Popen] = []

    def run(self, job: Job) -> Job:
        """Run a job unless it is done already, and wait for it.

        Raises
        ------
        JobError
            With the last line of the run's output.
        """
        earlier = job.done()
        # A run with other settings is not this one; train.py will say so.
        if earlier is not None and earlier["command"] == job.command[1:]:
            tqdm.write(f"  {job.name}: done before")
            return job
        job.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        output = job.folder / "output.txt"
        with open(output, "a", encoding="utf-8") as log, self.bar(job) as bar:
            child = subprocess.Popen(
                job.command, cwd=RECIPE, stdout=log, stderr=subprocess.STDOUT
            )
            self.children.append(child)
            peak_mb = self.wait(child, job, bar)
        if child.returncode:
            last = output.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise JobError(f"{job.name} failed: {' '.join(last)} (all in {output})")
        shown = outcome(job)  # fails if the run left no results
        seconds = round(time.perf_counter() - started, 1)
        done = {"seconds": seconds, "peak_mb": peak_mb, "command": job.command[1:]}
        partial = job.folder / f"{DONE}.partial"
        partial.write_text(json.dumps(done), encoding="utf-8")
        os.replace(partial, job.folder / DONE)
        tqdm.write(f"  {job.name}: {seconds:.0f} s  {shown}")
        return job

    def wait(self, child: subprocess.Popen, job: Job, bar: tqdm) -> int:
        """Wait for a process, moving its bar; returns its peak memory in MB."""
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                child.returncode = os.waitstatus_to_exitcode(status)
                return usage.ru_maxrss // 1024
            time.sleep(POLL_SECONDS)
            bar.update(steps_done(job.folder) - bar.n)

    @contextmanager
    def bar(self, job: Job) -> Iterator[tqdm]:
        """A progress bar on a free line of the terminal."""
        with self.lock:
            line = self.free_lines.pop(0)
        quiet = 0.5 if sys.stderr.isatty() else 30
        try:
            with tqdm(
                total=job.steps,
                desc=f"{job.name:36}",
                unit="step",
                position=line,
                leave=False,
                mininterval=quiet,
                dynamic_ncols=True,
            ) as bar:
                yield bar
        finally:
            with self.lock:
                self.free_lines.insert(0, line)

    def stop(self) -> None:
        """End all running children; they resume when called again."""
        for child in self.children:
            if child.returncode is None:
                child.terminate()


def steps_done(folder: Path) -> int:
    """The last optimiser step in a run's log, 0 before the first."""
    try:
        last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return json.loads(last)["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return 0


def outcome(job: Job) -> str:
    """A finished run's main figures."""
    last = job.results()["last"]
    return "  ".join(
        f"{key} {last[key]:.3f}" for key in ("mAP", "knn_mAP") if key in last
    )
