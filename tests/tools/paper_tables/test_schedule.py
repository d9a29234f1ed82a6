"""Jobs in the order of their needs; failures hold back only what needs them."""

import threading
import time
from pathlib import Path

import pytest

from paper_tables import schedule
from paper_tables.jobs import Job, JobError
from paper_tables.schedule import in_order, run_all


def job(name, *needs):
    return Job(name, Path("OUT") / name, Path("recipe"), "x.yaml", {}, 1, needs=needs)


class Runner:
    """Notes what it is asked to run; some jobs fail."""

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
                raise JobError(f"{job.name} failed: no corpus")
            self.finished.append(job.name)

    def stop(self):
        self.stopped = True


def test_in_order_has_each_job_once_after_its_needs():
    start = job("start")
    middle = job("middle", start)
    end = job("end", middle, start)
    again = job("start")  # the same folder
    assert in_order([end, again, middle, job("other")]) == [
        start,
        middle,
        end,
        job("other"),
    ]


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_all_run_after_their_needs(at_a_time):
    starts = [job(f"start{n}") for n in range(3)]
    jobs = [job(f"{start.name}-{n}", start) for start in starts for n in range(2)]
    runner = Runner()
    run_all(jobs, runner, at_a_time)
    assert sorted(runner.finished) == sorted(j.name for j in (*starts, *jobs))
    assert runner.most == at_a_time


def test_a_failure_holds_back_only_what_needs_it(capsys):
    bad, good = job("bad"), job("good")
    after = job("after", bad)
    jobs = [job("last", after), job("fine", good)]
    runner = Runner(failing=("bad",))
    with pytest.raises(JobError) as error:
        run_all(jobs, runner, 1)
    assert runner.finished == ["good", "fine"]
    assert str(error.value).splitlines() == [
        "bad failed: no corpus",
        "after: not run, it needs one that failed",
        "last: not run, it needs one that failed",
    ]
    assert "bad failed: no corpus" in capsys.readouterr().out  # when it happens


def test_an_interruption_stops_what_runs(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "wait", interrupted)
    runner = Runner()
    with pytest.raises(KeyboardInterrupt):
        run_all([job("one")], runner, 1)
    assert runner.stopped
