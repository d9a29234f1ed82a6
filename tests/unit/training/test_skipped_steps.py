"""Steps and clips that do not train: left out, counted, named, and not for ever."""

import json

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from eat.errors import ExperimentError
from eat.evaluation.metrics import mean_average_precision
from eat.training.finetune import FinetuneBrain


class Toy(FinetuneBrain):
    """Its loss is not a number at the steps of `bad`."""

    metric = "mAP"
    bad = frozenset()

    def compute_forward(self, batch, stage):
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.classify(spec, stage), batch.target

    def compute_objectives(self, predictions, batch, stage):
        loss = binary_cross_entropy_with_logits(*predictions)
        return loss * float("nan") if self.optimizer_step + 1 in self.bad else loss

    def compute_metrics(self, logits, labels):
        return {"mAP": mean_average_precision(logits, labels)}


def clips(count=24, damaged=()):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000, generator=generator) * 0.1,
            "target": torch.eye(3)[i % 3],
            "failures": [(f"x{i}", "broken")] if i in damaged else [],
        }
        for i in range(count)
    ]


@pytest.fixture
def train(finetune_brain, tmp_path):
    """Train twelve steps of two clips; returns the Brain."""

    def run(bad=(), damaged=(), **more):
        brain = finetune_brain(Toy, tmp_path, steps_per_epoch=12, **more)
        brain.bad = frozenset(bad)
        brain.fit_steps(clips(damaged=damaged), None)
        return brain

    return run


def left_out(folder):
    lines = (folder / "skipped.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_bad_steps_are_named_with_their_clips(train, tmp_path):
    brain = train(bad={3, 7})
    assert brain.optimizer_step == 12 and brain.meter.skipped == 2
    found = left_out(tmp_path)
    assert [record["step"] for record in found] == [3, 7]
    assert all(record["reason"] == "gradient norm nan" for record in found)
    assert all(len(record["clips"]) == 2 for record in found)
    clips_of_both = found[0]["clips"] + found[1]["clips"]
    assert len(set(clips_of_both)) == 4 and set(clips_of_both) < set(
        map(str, range(24))
    )


def test_a_good_step_in_between_begins_the_count_anew(train):
    brain = train(bad={2, 3, 5, 6, 8, 9}, run_opts={"nonfinite_patience": 2})
    assert brain.meter.skipped == 6 and brain.meter.skipped_in_a_row == 0


def test_bad_steps_in_a_row_stop_and_name_the_last_good_checkpoint(train, tmp_path):
    with pytest.raises(ExperimentError) as told:
        options = {"nonfinite_patience": 2, "ckpt_interval_steps": 4}
        train(bad={5, 6, 7, 8}, run_opts=options)
    message = str(told.value)
    assert message.startswith("step 7: ") and "3 steps in a row" in message
    [kept] = (tmp_path / "save").glob("CKPT*")
    assert f"{kept} is the last good checkpoint" in message and "\n" not in message


def test_damaged_clips_are_counted_and_named(train, tmp_path):
    brain = train(damaged={4, 9})
    assert brain.meter.unreadable == 2
    assert sorted(record["clips"] for record in left_out(tmp_path)) == [["x4"], ["x9"]]
    assert {record["reason"] for record in left_out(tmp_path)} == {"broken"}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["unreadable_clips"] == 2
    brain.last = {}  # there was no validation
    brain.write_results()
    assert json.loads((tmp_path / "results.json").read_text())["unreadable_clips"] == 2


def test_too_many_damaged_clips_stop_the_run(train):
    with pytest.raises(ExperimentError, match="12 damaged clips of .*share 0.01"):
        train(damaged=set(range(24)))


def test_many_damaged_clips_can_be_borne(train):
    assert (
        train(damaged=set(range(24)), max_unreadable_share=1.0).meter.unreadable == 24
    )
