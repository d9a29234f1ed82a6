"""The parts of the study and their pre-trainings, as `studies.yaml` lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mini_corpora.audioset import FOLDER
from paper_tables.jobs import Job

DEFAULT_YAML = "pretrain_evidence.yaml"
EPOCH_STEPS = 500  # between two measurements
EPOCHS = 10
MINUTES_PER_STEP = 0.003  # on one core of a Xeon without bf16 instructions
OPTIONS = ("--device", "cpu", "--noprogressbar")
FP32 = {"precision": "fp32", "eval_precision": "fp32"}  # for equal numbers anywhere
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class Row:
    """A setting that is pre-trained with several seeds."""

    name: str
    settings: dict[str, object]  # what differs from the YAML file
    yaml: str = DEFAULT_YAML
    cost: float = 1.0  # of a step, relative to the default

    def measured(self, epoch: int) -> tuple[str, ...]:
        """Return the weights that are probed after an epoch.

        After every second one and the last the student; of the default after all, and
        the teacher.
        """
        if self.name == "default":
            return ("student",) if epoch % 2 else ("student", "teacher")
        last = epoch * EPOCH_STEPS == self.steps
        return ("student",) if last or epoch % 2 == 0 else ()

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        epochs = int(str(self.settings.get("number_of_epochs", EPOCHS)))
        return epochs * EPOCH_STEPS

    @property
    def minutes(self) -> float:
        """Expected minutes of a run, on one core."""
        return self.steps * MINUTES_PER_STEP * self.cost

    def run_name(self, seed: int) -> str:
        """Return the name of a run's folder and of its result."""
        return f"{re.sub(r'[^a-zA-Z0-9.]+', '_', self.name)}-seed{seed}"


@dataclass(frozen=True)
class Study:
    """One question: rows that are compared, each with the same seeds."""

    name: str
    title: str
    seeds: int
    rows: tuple[Row, ...]
    reference: str  # the row with which the others are compared
    labels: Mapping[str, str]  # what rows are called on the page, if not their name
    comparisons: tuple[tuple[str, str], ...] = ()  # further pairs: row, reference

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Row and reference of every comparison."""
        names = [row.name for row in self.rows if row.name != self.reference]
        return [*((name, self.reference) for name in names), *self.comparisons]

    def label(self, name: str) -> str:
        """Return the name of a row as it is shown."""
        return self.labels.get(name, name)


@dataclass(frozen=True)
class JobFactory:
    """Makes the study's pre-trainings in an output folder."""

    output: Path

    @property
    def corpora(self) -> Path:
        """Folder of the corpus's folder."""
        return self.output / "corpus"

    @property
    def corpus(self) -> Path:
        """Folder of the corpus."""
        return self.corpora / FOLDER

    @property
    def manifests(self) -> Path:
        """Folder of the corpus's manifests."""
        return self.output / "manifests"

    @property
    def labeled_clips(self) -> Path:
        """Folder of the labeled clips' spectrograms."""
        return self.output / "labeled_clips"

    def pretraining(self, row: Row, seed: int) -> Job:
        """Return the pre-training of a row with a seed."""
        name = row.run_name(seed)
        folders = {
            "data_folder": self.corpus,
            "manifest_folder": self.manifests,
        }
        return Job(
            name,
            self.output / "runs" / name,
            RECIPES / "AudioSet",
            row.yaml,
            {**folders, "seed": seed, **FP32, **row.settings},
            steps=row.steps,
            options=OPTIONS,
        )


def read_studies(path: Path | None = None) -> dict[str, Study]:
    """Read the parts of the study by name."""
    path = path or Path(__file__).with_name("studies.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: _study(name, **keys) for name, keys in content.items()}


def _study(
    name: str,
    title: str,
    seeds: int,
    rows: dict[str, dict],
    reference: str = "default",
    labels: Mapping[str, str] | None = None,
    comparisons: Iterable[tuple[str, str]] = (),
) -> Study:
    made = tuple(_row(key, dict(value)) for key, value in rows.items())
    pairs = tuple((row, other) for row, other in comparisons)
    return Study(name, title, seeds, made, reference, labels or {}, pairs)


def _row(name: str, settings: dict[str, object]) -> Row:
    file = str(settings.pop("yaml", ""))
    cost = float(str(settings.pop("cost", 1.0)))
    # Beside the recipe's YAML files are those that only the study needs.
    path = f"../../../tools/evidence/hparams/{file}" if file else DEFAULT_YAML
    return Row(str(name), settings, path, cost)


def runs_of(studies: Iterable[Study], seeds: int | None) -> list[tuple[Row, int]]:
    """Return the runs of some parts, each once, the first seeds of all rows first."""
    runs: dict[str, tuple[Row, int]] = {}
    for study in studies:
        for seed in range(1, min(study.seeds, seeds or study.seeds) + 1):
            for row in study.rows:
                runs.setdefault(row.run_name(seed), (row, seed))
    return list(runs.values())
