"""Skipped steps and unreadable clips are logged, counted and limited."""

import json

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from eat.errors import ExperimentError
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.per_class import SingleLabelEvaluation
from eat.training.finetune import FinetuneBrain


class Toy(FinetuneBrain):
    """Have a loss that is NaN at the steps of `bad`."""

    metric = "mAP"
    evaluation = SingleLabelEvaluation()
    bad = frozenset()

    def compute_forward(self, batch, stage):
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.model_for(stage)(spec), batch.target

    def compute_objectives(self, predictions, batch, stage):
        loss = binary_cross_entropy_with_logits(*predictions)
        return loss * float("nan") if self.optimizer_step + 1 in self.bad else loss

    def compute_metrics(self, logits, labels):
        return {"mAP": mean_average_precision(logits, labels)}


def clips(count=24, unreadable=()):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000, generator=generator) * 0.1,
            "target": torch.eye(3)[i % 3],
            "failures": [(f"x{i}", "broken")] if i in unreadable else [],
        }
        for i in range(count)
    ]


@pytest.fixture
def train(finetune_brain, tmp_path):
    """Train twelve steps of two clips; return the Brain."""

    def run(bad=(), unreadable=(), **more):
        brain = finetune_brain(Toy, tmp_path, steps_per_epoch=12, **more)
        brain.bad = frozenset(bad)
        brain.fit_steps(clips(unreadable=unreadable), None)
        return brain

    return run


def skipped(folder):
    lines = (folder / "skipped.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_skipped_steps_are_listed_with_their_clips(train, tmp_path):
    brain = train(bad={3, 7})
    assert brain.optimizer_step == 12 and brain.train_state.skipped_steps == 2
    found = skipped(tmp_path)
    assert [record["step"] for record in found] == [3, 7]
    assert all(record["reason"] == "gradient norm nan" for record in found)
    assert all(len(record["clips"]) == 2 for record in found)
    clips_of_both = found[0]["clips"] + found[1]["clips"]
    assert len(set(clips_of_both)) == 4 and set(clips_of_both) < set(
        map(str, range(24))
    )


def test_steps_in_a_row_are_counted_since_the_last_good_one(train):
    brain = train(bad={2, 3, 5, 6, 8, 9}, run_opts={"nonfinite_patience": 2})
    state = brain.train_state
    assert (state.skipped_steps, state.skipped_in_a_row) == (6, 0)


def test_too_many_in_a_row_stop_the_run(train, tmp_path):
    options = {"nonfinite_patience": 2, "ckpt_interval_steps": 4}
    with pytest.raises(ExperimentError, match="step 7.* 3 ") as error:
        train(bad={5, 6, 7, 8}, run_opts=options)
    [kept] = (tmp_path / "save").glob("CKPT*")
    assert str(kept) in str(error.value) and "\n" not in str(error.value)


def test_unreadable_clips_are_counted_and_listed(train, tmp_path):
    brain = train(unreadable={4, 9})
    assert brain.train_state.unreadable_clips == 2
    assert sorted(record["clips"] for record in skipped(tmp_path)) == [["x4"], ["x9"]]
    assert {record["reason"] for record in skipped(tmp_path)} == {"broken"}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["unreadable_clips"] == 2
    brain.last = {}  # there was no validation
    brain.write_results()
    assert json.loads((tmp_path / "results.json").read_text())["unreadable_clips"] == 2


def test_too_many_unreadable_clips_stop_the_run(train):
    with pytest.raises(ExperimentError, match="12 of .* 0.01 .*--max_unreadable_share"):
        train(unreadable=set(range(24)))


def test_many_unreadable_clips_can_be_tolerated(train):
    brain = train(unreadable=set(range(24)), max_unreadable_share=1.0)
    assert brain.train_state.unreadable_clips == 24
