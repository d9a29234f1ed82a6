"""Training runs as jobs: one call of a recipe's train.py each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from eat.errors import EATError

JOB_FILE = "job.json"  # written into the run's folder when the job has finished
# Without these instructions bf16 is emulated and some ten times slower than fp32.
HAS_BF16 = torch.cpu._is_avx512_bf16_supported()


class JobError(EATError, RuntimeError):
    """A training run failed."""


@dataclass(frozen=True, eq=False)
class Job:
    """One call of a recipe's train.py; jobs are equal if their folders are."""

    name: str
    folder: Path  # of the run
    recipe: Path  # folder of the recipe
    yaml: str  # file in its ``hparams``
    settings: dict[str, object]  # overrides of the file's keys
    steps: int  # optimizer steps, for the progress bar
    options: tuple[str, ...] = ()  # SpeechBrain's run options
    processes: int = 1  # started by torchrun if there are several
    needs: tuple[Job, ...] = ()  # must have finished before
    gpu_hours: float = 0.0  # estimated

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    @property
    def command(self) -> list[str]:
        """The arguments of ``python``, to be run in the recipe's folder."""
        words = ["train.py", f"hparams/{self.yaml}"]
        if self.processes > 1:
            launcher = "-m torch.distributed.run --standalone --nproc_per_node="
            words = [*f"{launcher}{self.processes}".split(), *words]
        for key, value in {"output_folder": self.folder, **self.settings}.items():
            words += [f"--{key}", str(value)]
        return [*words, *self.options]

    def results(self) -> dict:
        """Read the ``results.json`` of the finished run."""
        return json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def finished(self) -> dict | None:
        """Return times, peak memory and command of the run; None if unfinished."""
        path = self.folder / JOB_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cpu_options() -> tuple[str, ...]:
    """Return run options of the mini runs: always on the CPU, for equal numbers."""
    options = ["--device", "cpu", "--noprogressbar"]
    if not HAS_BF16:
        options += ["--precision", "fp32", "--eval_precision", "fp32"]
    return tuple(options)


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Return each job once, after everything that it needs."""
    ordered: dict[Job, None] = {}

    def add(job: Job) -> None:
        for needed in job.needs:
            add(needed)
        ordered.setdefault(job)

    for job in jobs:
        add(job)
    return list(ordered)
