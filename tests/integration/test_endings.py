"""When a process of a run exits, the others exit soon, and the run can be resumed."""

import json
import random
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.kills import (
    FINETUNE,
    PRETRAIN,
    Setting,
    differences,
    start,
    train_under_kills,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
ONE = Setting("finetune_mini.yaml", f"{FINETUNE} --num_workers 2")
TWO = Setting("pretrain_mini.yaml", f"{PRETRAIN} --num_workers 0", processes=2)
SOON = 25  # seconds; a launcher kills after 30


@pytest.fixture
def restarts_allowed(monkeypatch):
    """Set what a launcher needs in its environment to restart processes."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")


class Restarted(Setting):
    """A launcher that restarts all processes when one has exited."""

    def command(self, data, run):
        """Return Setting's command with one more option."""
        command = super().command(data, run)
        return [*command[:3], "--max-restarts=1", *command[3:]]


@dataclass(frozen=True)
class OneOfTwoMachines(Setting):
    """The launcher of one of two machines that meet at a port."""

    port: int = 0

    def command(self, data, run):
        """Return the command with the options for several machines."""
        meet = ["--rdzv_id=1", "--rdzv_backend=c10d"]
        meet += [f"--rdzv_endpoint=localhost:{self.port}", "--max-restarts=1"]
        command = super().command(data, run)
        return [*command[:3], "--nnodes=2", "--nproc_per_node=1", *meet, *command[5:]]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run of two processes."""
    run = tmp_path_factory.mktemp("whole")
    train_under_kills(TWO, data, run, 0, random.Random(0))
    return run


def started(setting, data, run, wait=True):
    """Start a run and wait for its first logged step."""
    process = start(setting, data, run)
    while wait and not (run / "metrics.jsonl").exists():
        assert process.poll() is None, (run / "output.txt").read_text()
        time.sleep(0.005)
    return process


def rank(process, number):
    """Return the training process of this rank under a launcher."""
    ranks = psutil.Process(process.pid).children()
    return next(child for child in ranks if child.environ()["RANK"] == str(number))


def output_at_end(process, run):
    """Return the run's output once it has failed, which must be soon."""
    assert process.wait(timeout=SOON) != 0
    return (run / "output.txt").read_text()


def resume(data, run, whole):
    """Check that the resumed run gives the result of an uninterrupted run."""
    train_under_kills(TWO, data, run, 0, random.Random(0))
    assert list(differences(whole, run)) == []


@pytest.mark.parametrize("number", [0, 1])
def test_killed_process_stops_the_others(data, whole, tmp_path, number):
    process = started(TWO, data, tmp_path)
    rank(process, number).kill()
    output = output_at_end(process, tmp_path)
    assert output.count("\nerror: ") == 1  # of the other rank
    assert f"rank      : {number} " in output and "Signal 9 (SIGKILL)" in output
    assert output.count("Traceback") == 1  # the launcher's own
    resume(data, tmp_path, whole)


def test_signal_to_the_launcher_stops_all_processes(data, whole, tmp_path):
    process = started(TWO, data, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert output_at_end(process, tmp_path).count("stopped by SIGTERM") == 1
    assert len(list((tmp_path / "save").glob("CKPT*"))) == 1
    assert not (tmp_path / "results.json").exists()
    resume(data, tmp_path, whole)


def test_signal_to_one_process_stops_all(data, whole, tmp_path):
    process = started(TWO, data, tmp_path)
    rank(process, 1).send_signal(signal.SIGTERM)
    assert output_at_end(process, tmp_path).count("stopped by a signal") == 1
    resume(data, tmp_path, whole)


def test_restarting_launcher_gives_the_same_result(
    data, whole, tmp_path, restarts_allowed
):
    setting = Restarted(TWO.yaml, TWO.options, TWO.processes)
    process = started(setting, data, tmp_path)
    rank(process, 1).kill()
    assert process.wait(timeout=180) == 0
    assert list(differences(whole, tmp_path)) == []


def test_launcher_whose_restarts_would_hang_is_refused(data, tmp_path):
    setting = Restarted(TWO.yaml, TWO.options, TWO.processes)
    assert start(setting, data, tmp_path).wait(timeout=120) == 1
    output = (tmp_path / "output.txt").read_text()
    assert "error: --max-restarts: " in output
    assert not (tmp_path / "metrics.jsonl").exists()


def test_two_machines_restart_together(data, whole, tmp_path, restarts_allowed):
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    setting = OneOfTwoMachines(TWO.yaml, TWO.options, TWO.processes, port)
    launchers = [started(setting, data, tmp_path, wait=last) for last in (False, True)]
    [killed] = psutil.Process(launchers[1].pid).children()
    killed.kill()
    assert [launcher.wait(timeout=180) for launcher in launchers] == [0, 0]
    assert list(differences(whole, tmp_path)) == []


def test_run_resumes_with_another_number_of_processes(data, whole, tmp_path):
    """Two processes, then one that accumulates two batches."""
    process = started(TWO, data, tmp_path)
    process.send_signal(signal.SIGTERM)
    output_at_end(process, tmp_path)
    one = Setting(TWO.yaml, f"{TWO.options} --grad_accumulation_factor 2")
    train_under_kills(one, data, tmp_path, 0, random.Random(0))
    expected, found = (
        [json.loads(line) for line in (run / "metrics.jsonl").open()]
        for run in (whole, tmp_path)
    )
    assert len(expected) == len(found)
    for here, there in zip(expected, found, strict=True):
        assert here["kind"] == there["kind"] and here["step"] == there["step"]
        for key in {"loss", "grad_norm", "lr", "valid_loss"} & here.keys():
            assert there[key] == pytest.approx(here[key], rel=1e-4), (key, here)


def test_clips_of_a_killed_data_worker_are_reported(data, tmp_path):
    process = started(ONE, data, tmp_path)
    workers = psutil.Process(process.pid).children()
    workers[-1].kill()
    last = output_at_end(process, tmp_path).splitlines()[-1]
    assert last.startswith("error: DataLoader worker (pid")
    assert "clips being read: " in last
