"""Nothing of a run is lost silently when files of its folder are."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from test_resume import TRAIN, Toy, clips, fit, outcome

from eat.errors import CorruptCheckpointError, ExperimentError, Interrupted
from eat.training.checkpointer import AtomicCheckpointer
from eat.training.progress import recorded_step


@pytest.fixture
def make(finetune_brain):
    """Make a Brain with three steps an epoch, of two clips."""

    def brain(folder, **changed):
        folder.mkdir(exist_ok=True)
        settings = {"epochs": 2, "steps_per_epoch": 3, "keep_checkpoints": 2, **changed}
        return finetune_brain(Toy, folder, **settings)

    return brain


def interrupted(make, folder, stage=TRAIN, epoch=2, batch=2):
    """Interrupt a run in a step of its second epoch."""
    brain = make(folder)
    brain.signal_at = (stage, epoch, batch)
    with pytest.raises(Interrupted):
        fit(brain)
    return folder


def snapshot(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def checkpoints(folder):
    found = AtomicCheckpointer(folder / "save", {}).list_checkpoints()
    return sorted(found, key=lambda checkpoint: checkpoint.meta["unixtime"])


def empty_save(folder):
    shutil.rmtree(folder / "save")


def moved_checkpoints(folder):
    (folder / "elsewhere").mkdir()
    for checkpoint in (folder / "save").glob("CKPT*"):
        shutil.move(checkpoint, folder / "elsewhere")


def only_a_partial_one(folder):
    for checkpoint in (folder / "save").glob("CKPT*"):
        checkpoint.rename(checkpoint.with_name(f".partial-{checkpoint.name}"))


def no_logs_either(folder):
    empty_save(folder)
    for name in ("metrics.jsonl", "train_log.txt"):
        (folder / name).unlink()


def only_logs(folder):
    empty_save(folder)
    (folder / "progress.json").unlink()
    shutil.rmtree(folder / "model")


def only_a_model(folder):
    no_logs_either(folder)
    (folder / "progress.json").unlink()


@pytest.mark.parametrize(
    ("lose", "step"),
    [
        (empty_save, 5),
        (moved_checkpoints, 5),
        (only_a_partial_one, 5),
        (no_logs_either, 5),
        (only_logs, 5),
        (only_a_model, "model"),
    ],
)
def test_run_without_its_checkpoints_is_refused(make, tmp_path, lose, step):
    run = interrupted(make, tmp_path / "run")
    lose(run)
    before = snapshot(run)
    with pytest.raises(ExperimentError, match=f"{run}/.*{step}") as error:
        fit(make(run))
    assert "--output_folder" in str(error.value) and "\n" not in str(error.value)
    assert snapshot(run) == before


def test_finished_run_without_its_checkpoints_is_refused(make, tmp_path):
    brain = make(tmp_path, epochs=1)
    fit(brain)
    brain.write_results(best=brain.best())
    empty_save(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ExperimentError, match="results.json"):
        fit(make(tmp_path, epochs=1))
    assert snapshot(tmp_path) == before


def test_run_that_ended_before_its_first_checkpoint_starts_again(
    make, tmp_path, caplog
):
    whole, broken = make(tmp_path / "whole"), make(tmp_path / "run")
    fit(whole)

    def fail(*_):
        raise ZeroDivisionError

    broken.save_within_epoch = fail  # as if killed there
    with pytest.raises(ZeroDivisionError):
        fit(broken)
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_size
    assert recorded_step(tmp_path / "run") is None
    again = make(tmp_path / "run")
    fit(again)
    assert any(str(tmp_path / "run") in message for message in caplog.messages)
    assert outcome(tmp_path / "run", again)[1] == outcome(tmp_path / "whole", whole)[1]


def test_older_checkpoint_is_used_with_a_warning(make, tmp_path, caplog):
    """The records that are written again are kept as they were, too."""
    whole = make(tmp_path / "whole")
    fit(whole)
    run = interrupted(make, tmp_path / "run")
    before = (run / "metrics.jsonl").read_bytes()
    shutil.rmtree(checkpoints(run)[-1].path)
    again = make(run)
    fit(again)
    assert any("step 3" in text and "step 5" in text for text in caplog.messages)
    assert (run / "metrics.jsonl.1").read_bytes() == before
    assert outcome(run, again)[1] == outcome(tmp_path / "whole", whole)[1]


def test_altered_logs_are_repaired_when_the_run_resumes(make, tmp_path):
    whole = make(tmp_path / "whole")
    fit(whole)
    run = interrupted(make, tmp_path / "run")
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # in its last record, of step 5
    again = make(run)
    fit(again)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    found = [(record["kind"], record["step"]) for record in records]
    steps = [("step", step) for step in (1, 2, 3, 4, 6)]
    assert found == [*steps[:3], ("epoch", 3), *steps[3:], ("epoch", 6)]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_text("{}")])
def test_lost_logs_of_a_finished_run_are_noticed(make, tmp_path, caplog, lose):
    brain = make(tmp_path)
    fit(brain)
    brain.write_results(best=brain.best())
    fit(make(tmp_path))
    assert "metrics.jsonl" not in caplog.text
    lose(tmp_path / "metrics.jsonl")
    fit(make(tmp_path))
    assert f"{tmp_path / 'metrics.jsonl'}: " in caplog.text


def test_removed_or_altered_model_is_written_again(make, tmp_path):
    """By a finished run, from the best epoch, which is not the last."""
    brain = make(tmp_path, epochs=3)
    brain.scores = [None, 0.1, 0.9, 0.2]
    fit(brain)
    brain.write_results(best=brain.best())
    before = snapshot(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["step"] == 6
    for name in ("model.safetensors", "config.json"):
        path = tmp_path / "model" / name
        path.write_bytes(before[path][:-1] + b"!")
        fit(make(tmp_path, epochs=3))
        assert snapshot(tmp_path / "model") == before
    shutil.rmtree(tmp_path / "model")
    fit(make(tmp_path, epochs=3))
    assert snapshot(tmp_path / "model") == before


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_text("{")])
def test_removed_or_damaged_results_are_written_again(make, tmp_path, lose):
    brain = make(tmp_path)
    fit(brain)
    brain.write_results(best=brain.best(), test=brain.test(clips(6)))
    path = tmp_path / "results.json"
    before = json.loads(path.read_text())
    lose(path)
    again = make(tmp_path)
    fit(again)
    again.write_results(best=again.best(), test=again.test(clips(6)))
    after = json.loads(path.read_text())
    assert after.pop("cost").keys() == before.pop("cost").keys()
    assert after == before


def test_advice_names_the_checkpoint_that_will_be_used(make, tmp_path):
    run = interrupted(make, tmp_path / "run")
    *_, older, newest = checkpoints(run)
    (newest.path / "classifier.ckpt").write_bytes(b"damaged")
    with pytest.raises(
        CorruptCheckpointError, match=re.escape(older.path.name)
    ) as error:
        fit(make(run))
    assert f"move {newest.path.name} away" in str(error.value)
    shutil.move(newest.path, tmp_path)  # as advised
    whole, again = make(tmp_path / "whole"), make(run)
    fit(whole)
    fit(again)
    assert outcome(run, again)[1] == outcome(tmp_path / "whole", whole)[1]


def test_advice_where_no_other_checkpoint_is_left(make, tmp_path):
    run = interrupted(make, tmp_path / "run")
    *older, newest = checkpoints(run)
    (newest.path / "CKPT.yaml").unlink()
    for checkpoint in older:
        (checkpoint.path / "brain.ckpt").write_bytes(b"damaged")
    with pytest.raises(CorruptCheckpointError, match="no other checkpoint") as error:
        fit(make(run))
    assert "move" not in str(error.value)


def test_clock_that_is_set_back_leaves_the_newest_checkpoint_the_newest(
    make, tmp_path, monkeypatch
):
    run = interrupted(make, tmp_path / "run")
    monkeypatch.setattr("time.time", lambda: 1000.0)
    brain = make(run)
    fit(brain)
    assert checkpoints(run)[-1].meta["epoch"] == 2
    assert brain.optimizer_step == 6


def test_signal_is_the_hangup_of_a_terminal(make, tmp_path):
    brain = make(tmp_path)
    step = brain.fit_batch

    def hang_up(batch):
        os.kill(os.getpid(), signal.SIGHUP)
        return step(batch)

    brain.fit_batch = hang_up
    with pytest.raises(Interrupted) as stop:
        fit(brain)
    assert stop.value.number == signal.SIGHUP and recorded_step(tmp_path) == 1
