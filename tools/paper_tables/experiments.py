"""The experiments of the paper as training jobs, at full scale and in miniature.

Tasks are named as in the paper: AS-2M, AS-20K, ESC-50, SPC-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paper_tables.jobs import Job, cpu_options

RECIPES = {  # by task
    "AS-2M": "AudioSet",
    "AS-20K": "AudioSet",
    "ESC-50": "ESC50",
    "SPC-2": "SpeechCommands",
}


@dataclass(frozen=True)
class Scale:
    """How models are pre-trained and fine-tuned, see ``data/scales.yaml``."""

    name: str
    pretrain: str
    epochs: int
    steps_per_epoch: int
    blocks: str
    pooling: str
    gpu_hours: float
    tasks: dict[str, dict]


with open(Path(__file__).with_name("data") / "scales.yaml", encoding="utf-8") as _file:
    SCALES = {k: Scale(k, **keys) for k, keys in yaml.safe_load(_file).items()}


@dataclass(frozen=True)
class Cell:
    """One number of a table: a mean over seeds."""

    row: str
    column: str
    runs: tuple[tuple[Job, ...], ...]  # by seed: five folds for ESC-50, else one job

    @property
    def metric(self) -> str:
        """``mAP`` or ``accuracy``."""
        return "accuracy" if self.column in ("ESC-50", "SPC-2") else "mAP"

    @property
    def jobs(self) -> list[Job]:
        """The jobs of all seeds."""
        return [job for run in self.runs for job in run]


@dataclass(frozen=True)
class JobFactory:
    """Makes the jobs of a scale."""

    scale: Scale
    recipes: Path  # their folder
    data: Mapping[str, Path]  # corpus folder by recipe
    output: Path  # gets a folder for each run
    seeds: tuple[int, ...] = (1,)  # each for a pre-training and its fine-tunings
    processes: int = 1  # GPUs of a pre-training

    def pretraining(self, seed: int, **changed: object) -> Job:
        """Return a pre-training on AudioSet; `changed` overrides the YAML file."""
        scale = self.scale
        settings = {
            "seed": seed,
            "number_of_epochs": scale.epochs,
            "steps_per_epoch": scale.steps_per_epoch,
            **changed,
        }
        if scale.name == "full":  # the batch of four GPUs, whatever their number
            settings["grad_accumulation_factor"] = 4 // self.processes
        return self._job(
            f"pretrain{_suffix(changed)}-seed{seed}",
            "AudioSet",
            scale.pretrain,
            settings,
            steps=scale.epochs * scale.steps_per_epoch,
            processes=self.processes,
            gpu_hours=scale.gpu_hours,
        )

    def finetuning(
        self,
        task: str,
        pretraining: Job,
        seed: int,
        model: str = "model",
        **changed: object,
    ) -> Job:
        """Return a fine-tuning of a pre-trained model; `changed` overrides the YAML."""
        task_keys = self.scale.tasks[task]
        variant = pretraining.name.removeprefix("pretrain").removesuffix(f"-seed{seed}")
        if model != "model":  # models/epoch3
            variant += f"-{Path(model).name}"
        settings = {
            **task_keys.get("settings", {}),
            "seed": seed,
            "pretrained": pretraining.folder / model,
            **changed,
        }
        return self._job(
            f"{task}{variant}{_suffix(changed)}-seed{seed}",
            RECIPES[task],
            task_keys["yaml"],
            settings,
            steps=task_keys["steps"],
            needs=(pretraining,),
            gpu_hours=task_keys.get("gpu_hours", 0),
        )

    def _job(
        self, name: str, recipe: str, file: str, settings: dict, **more: Any
    ) -> Job:
        folders = {
            "data_folder": self.data[recipe],
            "manifest_folder": self.output / "manifests" / recipe,
        }
        return Job(
            name,
            self.output / name,
            self.recipes / recipe,
            file,
            {**folders, **settings},
            options=cpu_options() if self.scale.name == "mini" else (),
            **more,
        )


def _suffix(changed: Mapping[str, object]) -> str:
    """Name a run by its changed keys: ``-lambda_0.1``."""
    return "".join(f"-{k}_{v}" for k, v in changed.items()).replace(",", "+")
