"""Records are written once, even if the run is interrupted."""

import json

import pytest
import torch

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


def test_truncate_removes_later_records(tmp_path, logs):
    logs.write("step", 1, 1, {"loss": 1.0})
    (tmp_path / "train_log.txt").write_text("epoch 1\n")
    sizes = logs.sizes()
    logs.write("step", 1, 2, {"loss": 2.0})
    logs.write_skipped_clips(2, "unreadable", ["a"])
    (tmp_path / "train_log.txt").write_text("epoch 1\nepoch 2\n")
    MetricsLogger(tmp_path).truncate(sizes)
    assert [record["step"] for record in lines(tmp_path)] == [1]
    assert lines(tmp_path, "skipped.jsonl") == []
    assert (tmp_path / "train_log.txt").read_text() == "epoch 1\n"


def test_truncate_removes_an_incomplete_line(tmp_path, logs):
    logs.write("step", 1, 1, {})
    sizes = logs.sizes()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "st')
    logs.truncate(sizes)
    logs.write("step", 1, 2, {})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_truncate_to_nothing(tmp_path, logs):
    logs.write("step", 1, 1, {})
    logs.truncate({})
    assert lines(tmp_path) == []
