"""Jobs: run once, again after a failure or with other settings; their commands."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from paper_tables.jobs import Job, JobError, Runner


@dataclass(frozen=True, eq=False)
class Script(Job):
    """A job that runs a few lines of Python in place of a training."""

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
    return Script(
        "a job", folder, folder.parent, "x.yaml", {}, 3, lines=lines.format(folder)
    )


def test_job_runs_once(tmp_path, capsys):
    job = script(tmp_path / "run", TRAIN)
    runner = Runner()
    for _ in range(2):
        assert runner.run(job).results()["last"]["mAP"] == 0.25
    assert (tmp_path / "run" / "calls").read_text() == "x"
    assert job.done()["seconds"] > 0 and job.done()["peak_mb"] > 0
    assert "mAP 0.250" in capsys.readouterr().out


def test_job_with_other_settings_is_not_taken_for_done(tmp_path):
    Runner().run(script(tmp_path / "run", TRAIN))
    other = script(tmp_path / "run", TRAIN.replace("0.25", "0.5"))
    Runner().run(other)
    assert (tmp_path / "run" / "calls").read_text() == "xx"
    assert other.done()["command"] == other.command


def test_a_command_that_changes_nothing_leaves_the_record_of_the_first(tmp_path):
    folder = tmp_path / "run"
    Runner().run(script(folder, TRAIN))
    before = (folder / "job.json").read_bytes()
    Runner().run(script(folder, "pass"))  # as train.py does with a finished run
    assert (folder / "job.json").read_bytes() == before


def test_failed_job_says_why_and_runs_again(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(JobError, match=r"a job failed: error: no such corpus \(all in"):
        Runner().run(script(folder, "import sys; sys.exit('error: no such corpus')"))
    Runner().run(script(folder, TRAIN))
    assert (folder / "calls").read_text() == "x"


def test_command_is_what_one_would_type():
    folder, recipe = Path("OUT/run"), Path("recipes/ESC50")
    job = Job("x", folder, recipe, "x.yaml", {"lr": 0.1}, 1, ("--device", "cpu"))
    told = "train.py hparams/x.yaml --output_folder OUT/run --lr 0.1 --device cpu"
    assert " ".join(job.command) == told
    four = Job("x", folder, recipe, "x.yaml", {"lr": 0.1}, 1, processes=4)
    launcher = "-m torch.distributed.run --standalone --nproc_per_node=4 "
    assert " ".join(four.command) == launcher + told.removesuffix(" --device cpu")


def test_jobs_are_their_folders():
    one, same, other = (
        Job(name, Path(folder), Path(), "x.yaml", {}, 1)
        for name, folder in [("a", "OUT/1"), ("b", "OUT/1"), ("a", "OUT/2")]
    )
    assert len({one, same, other}) == 2 and one == same != other
