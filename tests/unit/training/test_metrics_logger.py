"""Records are written once, even if the run is interrupted."""

import errno
import json
import os

import pytest
import torch

from eat.errors import ExperimentError
from eat.training import metrics_logger
from eat.training.metrics_logger import MetricsLogger


@pytest.fixture
def logs(tmp_path):
    return MetricsLogger(tmp_path)


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_record_is_a_line_of_json(tmp_path, logs):
    logs.write(
        "step", 2, 7, {"loss": torch.tensor(0.5), "lr": 0.1, "bad": float("nan")}
    )
    expected = {"kind": "step", "epoch": 2, "step": 7, "loss": 0.5, "lr": 0.1}
    assert lines(tmp_path) == [{**expected, "bad": None}]


def test_skipped_clips_are_listed(tmp_path, logs):
    logs.write_skipped_clips(3, "gradient norm nan", ["ä", "b"])
    found = lines(tmp_path, "skipped.jsonl")
    assert found == [{"step": 3, "reason": "gradient norm nan", "clips": ["ä", "b"]}]


def resume(folder, marks, step, epoch_ended=True, backup=False):
    MetricsLogger(folder).resume(marks, step, epoch_ended, backup)


def test_resume_removes_later_records(tmp_path, logs, caplog):
    logs.write("step", 1, 1, {"loss": 1.0})
    (tmp_path / "train_log.txt").write_text("epoch: 1, step: 1 - loss: 1\n")
    marks = logs.sync()
    logs.write("step", 1, 2, {"loss": 2.0})
    logs.write_skipped_clips(2, "unreadable", ["a"])
    with open(tmp_path / "train_log.txt", "a") as file:
        file.write("epoch: 2, step: 2 - loss: 2\n")
    resume(tmp_path, marks, 1)
    assert [record["step"] for record in lines(tmp_path)] == [1]
    assert lines(tmp_path, "skipped.jsonl") == []
    assert (tmp_path / "train_log.txt").read_text() == "epoch: 1, step: 1 - loss: 1\n"
    assert not list(tmp_path.glob("*.1"))
    assert not [r for r in caplog.records if r.levelname == "WARNING"]  # as after kills


def test_resume_removes_an_incomplete_line(tmp_path, logs):
    logs.write("step", 1, 1, {})
    marks = logs.sync()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "st')
    resume(tmp_path, marks, 1)
    logs.write("step", 1, 2, {})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_resume_from_an_older_checkpoint_keeps_what_it_cuts(tmp_path, logs):
    logs.write("step", 1, 1, {})
    marks = logs.sync()
    logs.write("step", 1, 2, {})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl.1").write_text("taken")
    resume(tmp_path, marks, 1, backup=True)
    assert [record["step"] for record in lines(tmp_path)] == [1]
    assert (tmp_path / "metrics.jsonl.2").read_bytes() == before


def delete_line(content):
    rows = content.splitlines(keepends=True)
    return b"".join(rows[:1] + rows[2:])


@pytest.mark.parametrize(
    ("alter", "steps"),
    [
        (delete_line, [1, 3]),
        (lambda content: content[: content.index(b"\n") + 9], [1]),  # within a line
        (lambda content: content.replace(b"0.5", b"0.7"), [1, 2, 3]),
        (lambda content: content.replace(b'2, "loss', b"2, loss"), [1, 3]),
        (lambda content: content.replace(b"\n", b"\r\n"), [1, 2, 3]),
        (lambda content: b"my notes\n[1]\n\0\n" + content, [1, 2, 3]),
    ],
)
def test_altered_log_is_noticed_and_kept(tmp_path, logs, caplog, alter, steps):
    """What is cut is found by its step, since the sizes no longer hold."""
    for step in (1, 2, 3):
        logs.write("step", 1, step, {"loss": 0.5})
    marks = logs.sync()
    logs.write("epoch", 1, 3, {})  # after the checkpoint before the validation
    logs.write("step", 2, 4, {})
    path = tmp_path / "metrics.jsonl"
    altered = alter(path.read_bytes())
    path.write_bytes(altered)
    resume(tmp_path, marks, 3, epoch_ended=False)
    assert [record["step"] for record in lines(tmp_path)] == steps
    assert (tmp_path / "metrics.jsonl.1").read_bytes() == altered
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"{path}: ") and "metrics.jsonl.1" in warning


def test_altered_epochs_are_cut_by_step(tmp_path, logs):
    for epoch in (1, 2, 3):
        with open(tmp_path / "train_log.txt", "a") as file:
            file.write(f"epoch: {epoch}, step: {2 * epoch} - valid loss: 1\n")
        if epoch == 2:
            marks = logs.sync()
    path = tmp_path / "train_log.txt"
    path.write_text("My run\n" + path.read_text())
    resume(tmp_path, marks, 4)
    found = path.read_text().splitlines()
    assert [line[:8] for line in found] == ["epoch: 1", "epoch: 2"]


def test_removed_log_is_noticed(tmp_path, logs, caplog):
    logs.write("step", 1, 1, {})
    marks = logs.sync()
    (tmp_path / "metrics.jsonl").unlink()
    resume(tmp_path, marks, 1)
    assert str(tmp_path / "metrics.jsonl") in caplog.messages[-1]


def test_log_is_on_disk_before_the_checkpoint(tmp_path, logs, monkeypatch):
    logs.write("step", 1, 1, {})
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    logs.sync()
    assert synced == [str(tmp_path / "metrics.jsonl"), str(tmp_path)]


def test_record_is_not_appended_to_an_unfinished_line(tmp_path, logs):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}')  # an editor saved it so
    logs.write("step", 1, 2, {})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_record_that_finds_no_room_leaves_nothing(tmp_path, logs, monkeypatch):
    logs.write("step", 1, 1, {})
    real = metrics_logger.open_append

    class Full:
        """The disk takes the first bytes of what is written."""

        def __init__(self, path):
            self.file = real(path)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            return self.file.write(data[:9])

    monkeypatch.setattr(metrics_logger, "open_append", Full)
    with pytest.raises(OSError, match="No space left") as error:
        logs.write("step", 1, 2, {})
    assert error.value.errno == errno.ENOSPC
    assert [record["step"] for record in lines(tmp_path)] == [1]


def test_logs_of_a_run_without_a_checkpoint_are_emptied_with_a_warning(
    tmp_path, logs, caplog
):
    logs.clear()
    assert not caplog.messages
    logs.write("step", 1, 1, {})
    logs.clear()
    assert lines(tmp_path) == [] and str(tmp_path) in caplog.messages[-1]


@pytest.mark.parametrize("name", ["metrics.jsonl", "skipped.jsonl", "train_log.txt"])
def test_links_and_pipes_are_not_written_into(tmp_path, name):
    (tmp_path / "run").mkdir()
    precious = tmp_path / "precious"
    precious.write_text("keep this")
    (tmp_path / "run" / name).symlink_to(precious)
    logs = MetricsLogger(tmp_path / "run")
    with pytest.raises(ExperimentError, match=name):
        logs.clear()
    assert precious.read_text() == "keep this"
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(ExperimentError, match=name):  # and does not wait
        logs.sync()
