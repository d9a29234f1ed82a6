"""The paper's tables and figures as runs: every number is a cell, every cell jobs.

Tasks are named as the paper names them: AS-2M, AS-20K, ESC-50, SPC-2.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paper_tables.jobs import Job
from paper_tables.scale import CORPORA, Scale

BLOCKS = (*(f"{size}x{size}" for size in range(1, 9)), "6x4,5x5,8x3")
LAMBDAS = (0.0, 0.01, 0.1, 1.0, 5.0, 10.0)
POOLINGS = ("cls", "mean")
FOLDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Cell:
    """One number of a table: the mean over seeds, each the mean over its jobs.

    Attributes
    ----------
    row, column
        Where it stands.
    runs
        The jobs of each seed (five folds of ESC-50, one job elsewhere).
    metric
        ``mAP`` or ``accuracy``.
    """

    row: str
    column: str
    runs: tuple[tuple[Job, ...], ...]
    metric: str

    @property
    def jobs(self) -> list[Job]:
        """All jobs."""
        return [job for run in self.runs for job in run]

    def value(self, results: list[dict], which: str) -> float:
        """A seed's number, from its jobs' results: which is ``best`` or ``last``."""
        return statistics.mean(_figures(r, which)[self.metric] for r in results)


def _figures(results: dict, which: str) -> dict[str, float]:
    # Where a test set stands apart, the best epoch is judged on it.
    return results["test"] if which == "best" and "test" in results else results[which]


@dataclass(frozen=True)
class Study:
    """Makes the jobs of a scale.

    Attributes
    ----------
    scale
        What to run.
    recipes
        Folder of the recipes.
    data
        Corpus folder by recipe.
    output
        Gets a folder for each run.
    seeds
        One run each; the seed of pre-training and fine-tuning alike.
    processes
        GPUs of a pre-training.
    """

    scale: Scale
    recipes: Path
    data: dict[str, Path]
    output: Path
    seeds: tuple[int, ...] = (1,)
    processes: int = 1

    def cells(self, table: str) -> list[Cell]:
        """The cells of ``table1`` to ``table3``, ``figure3`` or ``figure4``."""
        return TABLES[table](self)

    def pretraining(self, seed: int, **changed: object) -> Job:
        """Pre-training on AudioSet, with other settings than the default's."""
        label = "".join(f"-{key}_{value}" for key, value in changed.items())
        scale, name = self.scale, f"pretrain{label}-seed{seed}".replace(",", "+")
        settings = {
            "seed": seed,
            "number_of_epochs": scale.epochs,
            "steps_per_epoch": scale.steps_per_epoch,
            **changed,
        }
        if scale.name == "full":  # one GPU takes the batches of four
            settings["grad_accumulation_factor"] = 4 // self.processes
        return self._job(
            name,
            "AudioSet",
            scale.pretrain,
            settings,
            scale.epochs * scale.steps_per_epoch,
            processes=self.processes,
            gpu_hours=scale.gpu_hours.get("pretrain"),
        )

    def finetuning(
        self,
        task: str,
        pretraining: Job,
        seed: int,
        model: str = "model",
        **changed: object,
    ) -> Job:
        """Fine-tuning of a pre-trained model on a task."""
        yaml, settings, steps = self.scale.tasks[task]
        started = pretraining.name.removeprefix("pretrain").removesuffix(f"-seed{seed}")
        of_epoch = "" if model == "model" else f"-{model.rpartition('/')[2]}"
        label = "".join(f"-{key}_{value}" for key, value in changed.items())
        settings = {
            **settings,
            "seed": seed,
            "pretrained": pretraining.folder / model,
            **changed,
        }
        return self._job(
            f"{task}{started}{of_epoch}{label}-seed{seed}",
            CORPORA[task],
            yaml,
            settings,
            steps,
            needs=(pretraining,),
            gpu_hours=self.scale.gpu_hours.get(task),
        )

    def _job(
        self,
        name: str,
        recipe: str,
        yaml: str,
        settings: dict,
        steps: int,
        **more: object,
    ) -> Job:
        folders = {
            "data_folder": self.data[recipe],
            "manifest_folder": self.output / "manifests" / recipe,
        }
        return Job(
            name,
            self.output / name,
            self.recipes / recipe,
            yaml,
            {**folders, **settings},
            steps,
            self.scale.options,
            **more,
        )

    def over_seeds(self, run: Callable[[int], Job]) -> tuple[tuple[Job, ...], ...]:
        """One job for each seed."""
        return tuple((run(seed),) for seed in self.seeds)


def table1(study: Study) -> list[Cell]:
    """All four tasks from one pre-training."""

    def runs(task: str, seed: int) -> tuple[Job, ...]:
        start = study.pretraining(seed)
        if task == "ESC-50":
            return tuple(
                study.finetuning(task, start, seed, fold=fold) for fold in FOLDS
            )
        return (study.finetuning(task, start, seed),)

    return [
        Cell(
            "EAT",
            task,
            tuple(runs(task, seed) for seed in study.seeds),
            "mAP" if task.startswith("AS") else "accuracy",
        )
        for task in CORPORA
    ]


def table2(study: Study) -> list[Cell]:
    """AS-20K, beside what the pre-training cost."""
    runs = study.over_seeds(
        lambda seed: study.finetuning("AS-20K", study.pretraining(seed), seed)
    )
    return [Cell("EAT", "AS-20K", runs, "mAP")]


def table3(study: Study) -> list[Cell]:
    """Block sizes of the masks, and the flexible mix."""

    def run(blocks: str, seed: int) -> Job:
        changed = {} if blocks == study.scale.blocks else {"blocks": blocks}
        return study.finetuning("AS-20K", study.pretraining(seed, **changed), seed)

    return [
        Cell(blocks, "AS-20K", study.over_seeds(lambda s, b=blocks: run(b, s)), "mAP")
        for blocks in BLOCKS
    ]


def figure3(study: Study) -> list[Cell]:
    """AS-20K after each epoch of one pre-training."""

    def run(epoch: int, seed: int) -> Job:
        start = study.pretraining(seed)
        return study.finetuning("AS-20K", start, seed, f"models/epoch{epoch}")

    return [
        Cell(
            str(epoch), "AS-20K", study.over_seeds(lambda s, e=epoch: run(e, s)), "mAP"
        )
        for epoch in range(1, study.scale.epochs + 1)
    ]


def figure4(study: Study) -> list[Cell]:
    """Weights of the utterance loss, for either pooling."""

    def run(weight: float, pooling: str, seed: int) -> Job:
        start = study.pretraining(seed, **({} if weight == 1 else {"lambda": weight}))
        changed = {} if pooling == study.scale.pooling else {"pooling": pooling}
        return study.finetuning("AS-20K", start, seed, **changed)

    return [
        Cell(
            f"{weight:g}",
            pooling,
            study.over_seeds(lambda s, w=weight, p=pooling: run(w, p, s)),
            "mAP",
        )
        for weight in LAMBDAS
        for pooling in POOLINGS
    ]


TABLES = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "figure3": figure3,
    "figure4": figure4,
}
