"""A killed or stopped run that is resumed gives the result of an uninterrupted run.

`tools/benchmarks/kills.py` tests this at length.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.kills import (
    FINETUNE,
    PRETRAIN,
    Setting,
    differences,
    start,
    train_under_kills,
    try_setting,
)
from eat.utils.lock import lock_folder

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
SETTING = Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 0")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole")
    train_under_kills(SETTING, data, run, 0, random.Random(0))
    return run


def interrupt(data, run, number):
    """Send a signal after the first logged step; return exit status and last line."""
    process = start(SETTING, data, run)
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, number)
    status = process.wait(timeout=60)
    return status, (run / "output.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_a_checkpoint_and_the_run_resumes(data, whole, tmp_path, number):
    run = tmp_path / "run"
    status, line = interrupt(data, run, number)
    assert status == 128 + number and number.name in line
    assert len(list((run / "save").glob("CKPT*"))) == 1
    assert not (run / "results.json").exists()
    train_under_kills(SETTING, data, run, 0, random.Random(0))
    assert list(differences(whole, run)) == []


def test_second_run_in_the_folder_is_refused(data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with lock_folder(run):  # as the first run does
        second = subprocess.run(
            [*SETTING.command(data, run)],
            cwd=ROOT / "recipes" / "AudioSet",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert second.returncode == 1
    line = second.stderr.splitlines()[-1]
    assert line.startswith(f"error: {run}: ") and "process " in line
    assert {path.name for path in run.iterdir()} == {".lock"}


@pytest.mark.parametrize(
    "setting",
    [
        Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0", processes=2),
        Setting(
            "finetune_mini.yaml",
            f"{FINETUNE} --num_workers 2 --grad_accumulation_factor 2",
        ),
    ],
    ids=lambda setting: setting.name,
)
def test_killed_run_gives_the_same_result(data, tmp_path, setting):
    outcome = try_setting(setting, data, tmp_path, 2, random.Random(3))
    assert outcome["kills"] and outcome["differences"] == []


def test_differences_are_found(data, whole, tmp_path):
    """The comparison itself: another seed gives another result."""
    other = Setting("finetune_mini.yaml", f"{SETTING.options} --seed 2")
    run = tmp_path / "run"
    train_under_kills(other, data, run, 0, random.Random(0))
    found = list(differences(whole, run))
    assert "metrics.jsonl" in found and any("model" in line for line in found)
