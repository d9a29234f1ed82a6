"""A planned study without any folder behind it, and records of finished runs."""

from pathlib import Path

import pytest

from paper_tables.plan import Study
from paper_tables.scale import FULL, mini_scale


@pytest.fixture
def study():
    """Make the plan of a size."""

    def make(corpus="full", seeds=(1,), processes=1):
        data = {name: Path(name) for name in ("AudioSet", "ESC50", "SpeechCommands")}
        scale = FULL if corpus == "full" else mini_scale()
        return Study(scale, Path("recipes"), data, Path("OUT"), seeds, processes)

    return make


@pytest.fixture
def record():
    """Make what is gathered of a run, with one score for mAP and accuracy."""

    def make(score, **changed):
        figures = {"mAP": score, "accuracy": score, "epoch": 3}
        cost = {"device": "CPU x", "devices": 2, "hours": 1.0, "device_hours": 2.0}
        cost |= {"clips_per_second": 50.0, "gflop_per_clip": 4.5, "peak_memory_mb": 9}
        return {
            "seed": 1,
            "steps": 400,
            "clips_seen": 6400,
            "last": figures,
            "best": figures,
            "cost": cost,
            "data": {"eval": {"used": 600, "used_in_paper": 18884}},
            "versions": {"eat": "0.1.0", "git": None},
            "seconds": 90.0,
        } | changed

    return make
