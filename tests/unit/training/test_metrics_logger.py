"""Records are written once, whatever interrupts them."""

import json

import pytest
import torch

from eat.training.metrics_logger import MetricsLogger


@pytest.fixture
def book(tmp_path):
    return MetricsLogger(tmp_path)


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_record_is_a_line_of_json(tmp_path, book):
    book.write(
        "step", 2, 7, {"loss": torch.tensor(0.5), "lr": 0.1, "bad": float("nan")}
    )
    expected = {"kind": "step", "epoch": 2, "step": 7, "loss": 0.5, "lr": 0.1}
    assert lines(tmp_path) == [{**expected, "bad": None}]


def test_what_was_left_out_is_named(tmp_path, book):
    book.write_skipped_clips(3, "gradient norm nan", ["ä", "b"])
    found = lines(tmp_path, "skipped.jsonl")
    assert found == [{"step": 3, "reason": "gradient norm nan", "clips": ["ä", "b"]}]


def test_goes_back_to_the_checkpoint(tmp_path, book):
    book.write("step", 1, 1, {"loss": 1.0})
    (tmp_path / "train_log.txt").write_text("epoch 1\n")
    book._save(tmp_path / "saved")
    book.write("step", 1, 2, {"loss": 2.0})
    book.write_skipped_clips(2, "damaged", ["a"])
    (tmp_path / "train_log.txt").write_text("epoch 1\nepoch 2\n")
    MetricsLogger(tmp_path)._load(tmp_path / "saved", True)
    assert [record["step"] for record in lines(tmp_path)] == [1]
    assert lines(tmp_path, "skipped.jsonl") == []
    assert (tmp_path / "train_log.txt").read_text() == "epoch 1\n"


def test_a_torn_line_goes_as_well(tmp_path, book):
    book.write("step", 1, 1, {})
    book._save(tmp_path / "saved")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "st')
    book._load(tmp_path / "saved", True)
    book.write("step", 1, 2, {})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_finished_run_keeps_its_last_lines(tmp_path, book):
    book._save(tmp_path / "saved")
    book.write("test", 1, 1, {"accuracy": 1.0})
    (tmp_path / "results.json").write_text("{}")
    book._load(tmp_path / "saved", True)
    assert len(lines(tmp_path)) == 1


def test_run_without_a_checkpoint_begins_anew(tmp_path, book):
    book.write("step", 1, 1, {})
    book.begin()
    assert lines(tmp_path) == []
