"""Planned jobs without any folder behind them, and records of finished runs."""

from pathlib import Path

import pytest

from paper_tables.experiments import SCALES, JobFactory


@pytest.fixture
def make_factory():
    """Make the job factory of a scale."""

    def make(scale="full", seeds=(1,), processes=1):
        data = {name: Path(name) for name in ("AudioSet", "ESC50", "SpeechCommands")}
        recipes, output = Path("recipes"), Path("OUT")
        return JobFactory(SCALES[scale], recipes, data, output, seeds, processes)

    return make


@pytest.fixture
def record():
    """Make the record of a run, with one score for mAP and accuracy."""

    def make(score, **changed):
        metrics = {"mAP": score, "accuracy": score, "epoch": 3}
        cost = {"device": "CPU x", "devices": 2, "hours": 1.0, "device_hours": 2.0}
        cost |= {"clips_per_second": 50.0, "gflop_per_clip": 4.5, "peak_memory_mb": 9}
        return {
            "seed": 1,
            "steps": 400,
            "clips_seen": 6400,
            "last": metrics,
            "best": metrics,
            "cost": cost,
            "data": {"eval": {"used": 600, "used_in_paper": 18884}},
            "versions": {"eat": "0.2.0", "git": None},
            "seconds": 90.0,
        } | changed

    return make
