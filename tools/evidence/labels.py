"""Fine-tuning with a share of the labels, from a pre-trained network and from scratch.

Both starting points are tuned over one grid of learning rates, for each share, on the
labeled clips that a run does not train on, and with seeds of their own. Two more rows,
with all labels, have layer-wise decay: does the official code's constant rate of the
low blocks matter?
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from eat.utils.files import write_text
from evidence.studies import FP32, OPTIONS, RECIPES, JobFactory, Row
from paper_tables.jobs import Job

YAML = "finetune_evidence.yaml"
STEPS = 600
MINUTES = 2.5  # of a run, on one core of a Xeon without bf16 instructions
SHARES = (5, 20, 100)  # percent of the labeled training clips
STARTS = ("scratch", "pretrained")
LEARNING_RATES = (0.0005, 0.001, 0.002)
SEEDS = (1, 2, 3, 4, 5)
SEARCH_SEEDS = (101, 102)  # their models are those of seeds 1 and 2
SEARCH_SHARE = 80  # at most, so that clips are left to choose on
FULL = "balanced_train"  # the manifest of all labeled clips
# As in the official fine-tuning on AS-20K, relative to its learning rate: embedding and
# head are 0.65 ** 13 apart, and the minimum exceeds the rate of the lowest quarter.
LAYER_DECAY, MIN_LR = 0.33, 0.02
SCALE_MIN_LR = {"minimum scaled by layer": True, "constant minimum": False}
LAYER_SEEDS = SEEDS[:3]


@dataclass(frozen=True)
class Finetuning:
    """A fine-tuning of the study; a pre-trained one begins with `default`."""

    share: int
    start: str
    seed: int
    lr: float
    search: bool = False
    minimum: str = ""  # with layer-wise decay: a key of `SCALE_MIN_LR`

    @property
    def name(self) -> str:
        """Name of the run."""
        search = f"-lr{self.lr:g}" if self.search else ""
        layers = f"-{self.minimum.replace(' ', '_')}" if self.minimum else ""
        return f"labels_{self.share}-{self.start}{search}{layers}-seed{self.seed}"

    @property
    def trained_share(self) -> int:
        """Percent of the labeled clips to train on."""
        return min(self.share, SEARCH_SHARE) if self.search else self.share

    def job(self, factory: JobFactory, default: Row) -> Job:
        """Return the run, whose pre-training must have finished."""
        model = "none"
        needs: tuple[Job, ...] = ()
        if self.start == "pretrained":
            needs = (factory.pretraining(default, self.seed % 100),)
            model = str(needs[0].folder / "model")
        settings = {
            "data_folder": factory.corpus,
            "manifest_folder": factory.manifests,
            "train_manifest": write_subset(
                factory.manifests, self.trained_share, self.seed
            ),
            "pretrained": model,
            "lr": self.lr,
            "seed": self.seed,
            **FP32,
        }
        if self.minimum:
            settings |= {
                "layer_decay": LAYER_DECAY,
                "min_lr": MIN_LR * self.lr,
                "scale_min_lr": SCALE_MIN_LR[self.minimum],
            }
        folder = factory.output / "runs" / self.name
        recipe = RECIPES / "AudioSet"
        return Job(
            self.name, folder, recipe, YAML, settings, STEPS, OPTIONS, needs=needs
        )


def write_subset(manifests: Path, share: int, seed: int) -> str:
    """Write a random share of the labeled clips as a manifest; return its name.

    Both starting points see the same clips; each seed draws others.
    """
    if share == 100:
        return FULL
    name = f"{FULL}_{share}_seed{seed}"
    header, *lines = (manifests / f"{FULL}.csv").read_text("utf-8").splitlines()
    kept = random.Random(seed).sample(lines, len(lines) * share // 100)
    text = "\n".join([header, *sorted(kept)]) + "\n"
    path = manifests / f"{name}.csv"
    if not path.exists() or path.read_text("utf-8") != text:
        write_text(path, text)
    return name


def held_out(manifests: Path, name: str) -> list[int]:
    """Return which of the labeled clips a manifest of :func:`write_subset` lacks."""
    full, kept = (
        (manifests / f"{n}.csv").read_text("utf-8").splitlines()[1:]
        for n in (FULL, name)
    )
    trained = {*kept}
    return [i for i, line in enumerate(full) if line not in trained]


def search() -> list[Finetuning]:
    """Return the runs that choose a learning rate."""
    return [
        Finetuning(share, start, seed, lr, search=True)
        for share in SHARES
        for start in STARTS
        for lr in LEARNING_RATES
        for seed in SEARCH_SEEDS
    ]


def finetunings(rates: Mapping[tuple[int, str], float]) -> list[Finetuning]:
    """Return the runs that are reported, with the learning rate of share and start."""
    return [
        Finetuning(share, start, seed, lr)
        for (share, start), lr in rates.items()
        for seed in SEEDS
    ]


def layer_decays(lr: float) -> list[Finetuning]:
    """Return the runs with layer-wise decay, pre-trained and with all labels."""
    return [
        Finetuning(100, "pretrained", seed, lr, minimum=minimum)
        for minimum in SCALE_MIN_LR
        for seed in LAYER_SEEDS
    ]


def expected_minutes() -> float:
    """Return the minutes of all fine-tunings on one core, without pre-training."""
    rates = {(share, start): 0.0 for share in SHARES for start in STARTS}
    return MINUTES * len([*search(), *finetunings(rates), *layer_decays(0.0)])


def best_learning_rate(finished: Iterable[tuple[Finetuning, float]]) -> float:
    """Return the learning rate with the highest mean of (run, mAP) pairs."""
    scores: dict[float, list[float]] = {}
    for run, score in finished:
        scores.setdefault(run.lr, []).append(score)
    return max(scores, key=lambda lr: fmean(scores[lr]))
