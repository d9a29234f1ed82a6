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

DONE = "job.json"
# Without the instructions bf16 is emulated, some ten times slower than fp32.
HAS_BF16 = torch.cpu._is_avx512_bf16_supported()
POLL_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Job:
    """One call of a recipe's train.py; two jobs are the same if their folders are.

    Attributes
    ----------
    name
        Shown to the user.
    folder
        The run's folder.
    recipe
        Folder of the recipe.
    yaml
        File in the recipe's hparams.
    settings
        Overrides of its keys.
    steps
        Optimizer steps, for the progress bar.
    options
        SpeechBrain's run options.
    processes
        How many torchrun starts; 1 starts none.
    needs
        Jobs that must be done before.
    gpu_hours
        Estimated cost; None where nothing was ever measured.
    """

    name: str
    folder: Path
    recipe: Path
    yaml: str
    settings: dict[str, object]
    steps: int
    options: tuple[str, ...] = ()
    processes: int = 1
    needs: tuple[Job, ...] = ()
    gpu_hours: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    @property
    def command(self) -> list[str]:
        """What a user would type after ``python`` in the recipe's folder."""
        overrides = {"output_folder": self.folder, **self.settings}
        words = [str(w) for k, v in overrides.items() for w in (f"--{k}", v)]
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc_per_node={self.processes}"]
        script = ["train.py", f"hparams/{self.yaml}"]
        return [*launcher * (self.processes > 1), *script, *words, *self.options]

    def results(self) -> dict:
        """The finished run's results.json."""
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def done(self) -> dict | None:
        """Seconds, peak memory and command of the finished run; None before."""
        try:
            return json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def cpu_options() -> tuple[str, ...]:
    """Run options of mini runs: on the CPU everywhere, so that all see one number."""
    fp32 = ("--precision", "fp32", "--eval_precision", "fp32")
    return ("--device", "cpu", "--noprogressbar", *(() if HAS_BF16 else fp32))


class JobError(RuntimeError):
    """A training run that failed."""


class Runner:
    """Runs jobs; several threads may call it at once, each with its own bar.

    Parameters
    ----------
    lines
        Bars at a time.
    """

    def __init__(self, lines: int = 2) -> None:
        self.lock = threading.Lock()
        self.free_lines = list(range(lines))
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
        if earlier is not None and earlier["command"] == job.command:
            tqdm.write(f"  {job.name}: done before")
            return job
        job.folder.mkdir(parents=True, exist_ok=True)
        before, started = _content(job.folder / "results.json"), time.perf_counter()
        output = job.folder / "output.txt"
        with open(output, "a", encoding="utf-8") as log, self.bar(job) as bar:
            child = subprocess.Popen(
                [sys.executable, *job.command],
                cwd=job.recipe,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self.children.append(child)
            peak_mb = self.wait(child, job, bar)
        if child.returncode:
            last = output.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise JobError(f"{job.name} failed: {' '.join(last)} (all in {output})")
        shown = outcome(job)  # fails if the run left no results
        if earlier is not None and before == _content(job.folder / "results.json"):
            # Another command that changes no number: how it was made stays as it was.
            tqdm.write(f"  {job.name}: done before, by another command")
            return job
        seconds = round(time.perf_counter() - started, 1)
        done = {"seconds": seconds, "peak_mb": peak_mb, "command": job.command}
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


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def steps_done(folder: Path) -> int:
    """The last optimizer step in a run's log, 0 before the first."""
    try:
        last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return json.loads(last)["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return 0


def outcome(job: Job) -> str:
    """A finished run's main figures."""
    last = job.results()["last"]
    keys = ("mAP", "accuracy", "knn_mAP")
    return "  ".join(f"{key} {last[key]:.3f}" for key in keys if key in last)
