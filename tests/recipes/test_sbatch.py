"""The example for Slurm, with shell scripts in place of srun and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from eat.utils.distributed import NO_SHARED_STORE

SCRIPT = Path(__file__).parents[2] / "recipes" / "AudioSet" / "pretrain.sbatch"
SRUN = """#!/usr/bin/env bash
echo "$@" >"$PLAY/launched"
env >"$PLAY/environment"
trap 'echo asked to end; sleep 0.3; echo left >"$PLAY/left"; exit 143' TERM
touch "$PLAY/ready"
[ -e "$PLAY/wait" ] || exit "$(cat "$PLAY/status")"
while true; do sleep 0.02; done
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = requeue ]; then echo "$2" >"$PLAY/requeued"; else printf 'n7\\nn8\\n'; fi
"""


@pytest.fixture
def job(tmp_path):
    """Start the script as Slurm does, on nodes n7 and n8."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {
        "JOB_ID": "42",
        "JOB_NODELIST": "n[7-8]",
        "JOB_NUM_NODES": "2",
        "GPUS_ON_NODE": "4",
        "SUBMIT_DIR": str(SCRIPT.parent),
    }
    environment = {f"SLURM_{key}": value for key, value in slurm.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLAY": str(tmp_path)}

    def start(status=None):
        (tmp_path / ("wait" if status is None else "status")).write_text(str(status))
        return subprocess.Popen(
            ["bash", SCRIPT, "--data_folder", "my data"], env=environment, cwd=tmp_path
        )

    return start


def signaled(process, folder, number):
    while not (folder / "ready").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    return process.wait(timeout=20)


def test_launches_on_all_nodes(job, tmp_path):
    assert job(status=0).wait(timeout=20) == 0
    words = (tmp_path / "launched").read_text().split()
    assert words[:3] == ["torchrun", "--nnodes=2", "--nproc_per_node=4"]
    assert {"--rdzv_id=42", "--rdzv_endpoint=n7:29400"} < set(words)
    assert " ".join(words).endswith(
        "train.py hparams/pretrain.yaml --batch_size 6 --data_folder my data"
    )
    assert not (tmp_path / "requeued").exists()
    # Without it train.py refuses the restarts.
    environment = (tmp_path / "environment").read_text().splitlines()
    assert f"{NO_SHARED_STORE}=1" in environment and "--max-restarts=3" in words


def test_at_the_time_limit_it_stops_and_is_requeued(job, tmp_path):
    assert signaled(job(), tmp_path, signal.SIGUSR1) == 143
    assert (tmp_path / "left").exists()  # srun exited before the job
    assert (tmp_path / "requeued").read_text() == "42\n"


def test_when_preempted_or_canceled_it_only_stops(job, tmp_path):
    assert signaled(job(), tmp_path, signal.SIGTERM) == 143
    assert (tmp_path / "left").exists() and not (tmp_path / "requeued").exists()


def test_an_error_is_not_requeued(job, tmp_path):
    assert job(status=1).wait(timeout=20) == 1
    assert not (tmp_path / "requeued").exists()


def test_the_signal_requested_from_slurm_is_trapped():
    text = SCRIPT.read_text()
    assert "#SBATCH --signal=B:USR1@120\n" in text and "' USR1\n" in text
    assert "#SBATCH --requeue\n" in text
