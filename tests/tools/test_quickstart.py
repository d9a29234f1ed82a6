"""The quick start's jobs: what is compared, done only once, resumed, reported."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "quickstart"
sys.path.insert(0, str(FOLDER))

from report import SYSTEMS, _rows  # noqa: E402
from run import Plan, Study, best_rate  # noqa: E402

from paper_tables.jobs import Job  # noqa: E402


def test_both_starts_get_the_same_steps_and_seeds():
    study = Study(Plan(), Path("DATA"), Path("OUT"), seed=1)
    scratch, tuned = (
        study.finetunings(start, 0.001) for start in ("scratch", "pre-trained")
    )
    assert len(scratch) == len(tuned) == 3
    for one, other in zip(scratch, tuned, strict=True):
        differing = {k for k in one.settings if one.settings[k] != other.settings[k]}
        assert differing == {"pretrained"}
        assert one.settings["pretrained"] == "none" and one.steps == other.steps
        assert one.settings["held_out"] == 0
    # Another pre-training seed brings other fine-tuning seeds.
    other = Study(Plan(), Path("DATA"), Path("OUT"), seed=2).finetunings("scratch", 0.1)
    seeds = {job.settings["seed"] for job in scratch}
    assert not seeds & {job.settings["seed"] for job in other}
    # Rates are chosen on training clips, with every run in a folder of its own.
    choices = study.choices("scratch") + study.choices("pre-trained")
    assert all(job.settings["held_out"] == 0.2 for job in choices)
    assert len({job.folder for job in choices + scratch + tuned}) == len(choices) + 6


def test_best_rate(tmp_path):
    jobs = []
    for rate, score in [(0.1, 0.3), (0.2, 0.5), (0.3, 0.4)]:
        folder = tmp_path / str(rate)
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"last": {"mAP": score}}))
        jobs.append(Job("x", folder, Path(), "x.yaml", {"lr": rate}, 1))
    with ThreadPoolExecutor() as pool:
        assert best_rate([pool.submit(lambda job=job: job) for job in jobs]) == 0.2


def test_table_shows_every_run():
    results = {key: [0.1, 0.3] for _, _, key in SYSTEMS} | {"chance": 0.05}
    results["pretrained_frozen"] = 0.4
    rows = _rows(results)
    means = [row["mAP"] for row in rows]
    assert means == pytest.approx([0.05, 0.2, 0.2, 0.4, 0.2, 0.2])
    assert rows[1]["runs"] == "0.100, 0.300"
    assert rows[1]["spread"] == pytest.approx(0.02**0.5)
    assert "runs" not in rows[3]
