"""Golden curves: how the first steps of a pre-training went when all was well.

The stored curves are in fp32 on a CPU. Other processors round otherwise and training
amplifies it, so curves agree within tolerances only; what changes the method changes
them by more.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eat.report.curves import read_metrics
from paper_tables.jobs import Job

STEPS, INTERVAL = 200, 10
# How far a figure may lie from the stored one, as a share of it. With AVX2 in place of
# AVX-512, or another number of threads, it was 0.2% at most (2 cores, torch 2.14.1).
TOLERANCES = {
    "loss": 0.02,
    "frame_loss": 0.02,
    "utterance_loss": 0.02,
    "target_std": 0.02,
    "prediction_std": 0.05,
    "between_clip_variance": 0.02,
}
# Corpus below the mini corpora's folder, and optimizer steps of the whole schedule, of
# which the curve is the beginning.
RECIPES = {
    "AudioSet": ("AudioSet", 3000),
    "ESC50": ("ESC-50-master", 600),
    "SpeechCommands": ("speech_commands_v0.02", 600),
}


def golden_job(recipe: str, recipes: Path, corpora: Path, output: Path) -> Job:
    """The run that gives a recipe's curve: ``pretrain_mini.yaml``, its first steps."""
    corpus, total = RECIPES[recipe]
    settings = {
        "data_folder": corpora / corpus,
        "number_of_epochs": 1,
        "steps_per_epoch": STEPS,
        "total_steps": total,
        "log_interval": INTERVAL,
    }
    options = "--device cpu --noprogressbar --precision fp32 --eval_precision fp32"
    return Job(
        f"golden curve of {recipe}",
        output / recipe,
        recipes / recipe,
        "pretrain_mini.yaml",
        settings,
        STEPS,
        tuple(options.split()),
    )


def read_curve(run: Path) -> pd.DataFrame:
    """The figures of a run's steps, indexed by step."""
    metrics = read_metrics(run / "metrics.jsonl")
    steps = metrics[metrics["kind"] == "step"]
    return steps.set_index("step")[list(TOLERANCES)]


def read_golden(path: Path) -> pd.DataFrame:
    """A stored curve."""
    return pd.read_csv(path, index_col="step")


def deviations(curve: pd.DataFrame, golden: pd.DataFrame) -> pd.Series:
    """The largest relative difference of each figure.

    Raises
    ------
    ValueError
        If the curves are not of the same steps and figures.
    """
    if list(curve.index) != list(golden.index) or set(curve) != set(golden):
        raise ValueError(
            f"the curve has steps {list(curve.index)} of {sorted(curve)}, the golden "
            f"one {list(golden.index)} of {sorted(golden)}"
        )
    return ((curve - golden[curve.columns]).abs() / golden[curve.columns].abs()).max()


def differences(curve: pd.DataFrame, golden: pd.DataFrame) -> list[str]:
    """A line for each figure that is out of tolerance."""
    return [
        f"{name}: {share:.1%} off the golden curve, {TOLERANCES[name]:.0%} allowed"
        for name, share in deviations(curve, golden).items()
        if not share <= TOLERANCES[name]  # NaN is out as well
    ]
