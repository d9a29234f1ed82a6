"""The runner: each job once, after its needs, with the consequences of failures."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from paper_tables import runner as runner_module
from paper_tables.jobs import Job, JobError
from paper_tables.runner import Runner, run_all


@dataclass(frozen=True, eq=False)
class Script(Job):
    """A job that runs a few lines of Python instead of a training."""

    lines: str = ""

    @property
    def command(self):
        return ["-c", self.lines]


TRAIN = """
import json
with open("{0}/calls", "a") as file: file.write("x")
json.dump({{"last": {{"mAP": 0.25}}}}, open("{0}/results.json", "w"))
"""


def script(folder, lines):
    lines = lines.format(folder)
    return Script("a job", folder, folder.parent, "x.yaml", {}, 3, lines=lines)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.02)


def test_a_job_runs_once(tmp_path, capsys):
    job = script(tmp_path / "run", TRAIN)
    for _ in range(2):
        assert Runner().run(job).results()["last"]["mAP"] == 0.25
    assert (tmp_path / "run" / "calls").read_text() == "x"
    assert job.finished()["peak_mb"] > 0 and job.finished()["seconds"] >= 0
    assert "0.250" in capsys.readouterr().out


def test_cpu_time_is_that_of_the_process(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.3: pass\n"
    idle = "import time\ntime.sleep(0.3)\n"
    jobs = [
        script(tmp_path / str(i), text + TRAIN) for i, text in enumerate((busy, idle))
    ]
    used = [Runner().run(job).finished()["cpu_seconds"] for job in jobs]
    assert used[0] >= 0.3 > used[1]


def test_a_job_with_other_settings_runs_again(tmp_path):
    Runner().run(script(tmp_path / "run", TRAIN))
    other = script(tmp_path / "run", TRAIN.replace("0.25", "0.5"))
    Runner().run(other)
    assert (tmp_path / "run" / "calls").read_text() == "xx"
    assert other.finished()["command"] == other.command


def test_a_command_that_changes_no_result_keeps_the_record(tmp_path):
    folder = tmp_path / "run"
    Runner().run(script(folder, TRAIN))
    before = (folder / "job.json").read_bytes()
    Runner().run(script(folder, "pass"))  # as train.py does with a finished run
    assert (folder / "job.json").read_bytes() == before


def test_a_failed_job_gives_the_reason_and_runs_again(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(JobError) as error:
        Runner().run(script(folder, "import sys; sys.exit('the reason')"))
    assert "the reason" in str(error.value)
    assert str(folder / "output.txt") in str(error.value)
    Runner().run(script(folder, TRAIN))
    assert (folder / "calls").read_text() == "x"


def job(name, *needs):
    return Job(name, Path("OUT") / name, Path("recipe"), "x.yaml", {}, 1, needs=needs)


class FakeRunner:
    """Records what it is asked to run; some jobs fail."""

    def __init__(self, failing=()):
        self.failing, self.lock = failing, threading.Lock()
        self.finished, self.running, self.most, self.stopped = [], 0, 0, False

    def run(self, job):
        with self.lock:
            assert all(needed.name in self.finished for needed in job.needs)
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02)
        with self.lock:
            self.running -= 1
            if job.name in self.failing:
                raise JobError(f"{job.name} failed")
            self.finished.append(job.name)

    def stop(self):
        self.stopped = True


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_all_jobs_run_after_their_needs(max_jobs):
    starts = [job(f"start{n}") for n in range(3)]
    jobs = [job(f"{start.name}-{n}", start) for start in starts for n in range(2)]
    runner = FakeRunner()
    run_all(jobs, runner, max_jobs)
    assert sorted(runner.finished) == sorted(j.name for j in (*starts, *jobs))
    assert runner.most == max_jobs


def test_a_failure_stops_only_the_jobs_that_need_it(capsys):
    after = job("after", job("bad"))
    runner = FakeRunner(failing=("bad",))
    with pytest.raises(JobError) as error:
        run_all([job("last", after), job("fine", job("good"))], runner, 1)
    assert runner.finished == ["good", "fine"]
    names = [line.split()[0].strip(":") for line in str(error.value).split("; ")]
    assert sorted(names) == ["after", "bad", "last"]
    assert "bad failed" in capsys.readouterr().out  # at once, not only at the end


def test_an_interrupt_stops_the_runner(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner_module, "wait", interrupted)
    runner = FakeRunner()
    with pytest.raises(KeyboardInterrupt):
        run_all([job("one")], runner, 1)
    assert runner.stopped
