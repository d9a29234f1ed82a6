"""Signals stop a run after a checkpoint; the resumed run gives the same result."""

import json
import os
import signal

import pytest
import speechbrain as sb
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from eat.errors import ExperimentError, Interrupted
from eat.evaluation.metrics import mean_average_precision
from eat.evaluation.per_class import SingleLabelEvaluation
from eat.training.checkpointer import AtomicCheckpointer
from eat.training.finetune import FinetuneBrain


class Toy(FinetuneBrain):
    """Receive a signal at the n-th batch of a stage."""

    metric = "mAP"
    evaluation = SingleLabelEvaluation()
    signal_at = None

    def compute_forward(self, batch, stage):
        if self.signal_at == (stage, self.epoch, self.step):
            os.kill(os.getpid(), signal.SIGTERM)
        spec = self.modules.frontend(batch.wav, batch.lengths)
        return self.model_for(stage)(spec), batch.target

    def compute_objectives(self, predictions, batch, stage):
        return binary_cross_entropy_with_logits(*predictions)

    def compute_metrics(self, logits, labels):
        scores = getattr(self, "scores", None)  # of each epoch, if a test sets them
        score = scores[self.epoch] if scores else mean_average_precision(logits, labels)
        return {"mAP": score}

    def write_details(self, logits, labels):
        pass


def clips(count):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000, generator=generator) * 0.1,
            "target": torch.eye(3)[i % 3],
        }
        for i in range(count)
    ]


@pytest.fixture
def make(finetune_brain):
    """Make a Brain with three steps an epoch, of two batches of two clips."""

    def brain(folder, **changed):
        folder.mkdir(exist_ok=True)
        options = {"grad_accumulation_factor": 2, **changed.pop("run_opts", {})}
        settings = {"epochs": 2, "steps_per_epoch": 3, "log_interval": 2, **changed}
        return finetune_brain(Toy, folder, run_opts=options, **settings)

    return brain


def fit(brain):
    brain.fit_steps(clips(24), clips(6))


def outcome(folder, brain):
    """Return weights, optimizer state and metrics, but for times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("clips_per_second", None)
        record.pop("data_share", None)
    moments = [s["exp_avg"] for s in brain.optimizer.state_dict()["state"].values()]
    log = (folder / "train_log.txt").read_text()
    return [*brain.unwrapped_model.state_dict().values(), *moments], [*records, log]


WITHIN = 99  # an epoch, not at its end
TRAIN, VALID = sb.Stage.TRAIN, sb.Stage.VALID


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_at", "step"),
    [
        ((TRAIN, 1, 2), 1),  # at the last batch of a step
        ((TRAIN, 1, 3), 2),  # at the first: the step is finished
        ((TRAIN, 2, 6), 6),
        ((VALID, 1, 1), 3),  # before the validation's other batches
        ((VALID, 2, 2), 6),
    ],
    ids=lambda value: str(value),
)
def test_signal_saves_a_checkpoint_and_stops(make, tmp_path, signal_at, step):
    whole = make(tmp_path / "whole")
    fit(whole)
    stopped = make(tmp_path / "run")
    stopped.signal_at = signal_at
    with pytest.raises(Interrupted, match=f"SIGTERM.* step {step}\\b") as stop:
        fit(stopped)
    assert stop.value.number == signal.SIGTERM
    if signal_at[0] == VALID:
        assert len(stopped.outputs) == signal_at[2]  # evaluated batches
    resumed = make(tmp_path / "run")
    fit(resumed)
    tensors, records = outcome(tmp_path / "whole", whole)
    found, same = outcome(tmp_path / "run", resumed)
    assert all(map(torch.equal, tensors, found)) and len(tensors) == len(found)
    assert records == same


def kept(folder):
    return sorted(
        c.meta.get("epoch", WITHIN)
        for c in AtomicCheckpointer(folder / "save", {}).list_checkpoints()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep_checkpoints": 1}, [3, 7]),  # the best, the newest
        ({"keep_checkpoints": 2}, [1, 3, 6, 7]),  # two of each
        ({"keep_every_epochs": 2}, [2, 3, 4, 6, 7]),
        ({"keep_every_epochs": 7}, [3, 6, 7]),
    ],
    ids=str,
)
def test_checkpoints_are_kept_by_rule(make, tmp_path, settings, expected):
    brain = make(tmp_path, epochs=7, steps_per_epoch=1, **settings)
    brain.scores = [None, 0.5, 0.1, 0.9, 0.2, 0.3, 0.4, 0.0]
    fit(brain)
    assert kept(tmp_path) == expected
    assert brain.best()["epoch"] == 3


def test_checkpoints_are_deleted_after_the_new_one_is_complete(
    make, tmp_path, monkeypatch
):
    brain = make(tmp_path, epochs=3, steps_per_epoch=1)
    before = []
    publish = AtomicCheckpointer._publish

    def watched(self, saved, verbosity):
        before.append(kept(tmp_path))
        return publish(self, saved, verbosity)

    monkeypatch.setattr(AtomicCheckpointer, "_publish", watched)
    brain.scores = [None, 0.1, 0.2, 0.3]
    fit(brain)
    # Each epoch saves one before and one after validation.
    assert before == [[], [WITHIN], [1], [1, WITHIN], [2], [2, WITHIN]]


def test_of_equally_good_epochs_the_newest_is_the_best(make, tmp_path):
    brain = make(tmp_path, epochs=4, steps_per_epoch=1)
    brain.scores = [None, 0.1, 0.5, 0.5, 0.2]
    fit(brain)
    assert kept(tmp_path) == [3, 4] and brain.best()["epoch"] == 3
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["step"] == 3


def test_two_are_kept_from_the_second_on(make, tmp_path, monkeypatch):
    """Should the newest be damaged, there is another."""
    after = []
    run_options = {"ckpt_interval_steps": 2}
    brain = make(tmp_path, keep_checkpoints=2, run_opts=run_options)
    monkeypatch.setattr(
        "eat.training.resumable.record_checkpoint",
        lambda *_: after.append(kept(tmp_path)),
    )
    brain.scores = [None, 0.1, 0.2]
    fit(brain)
    assert len(after) == 10 and all(len(found) >= 2 for found in after[1:])
    assert kept(tmp_path) == [1, 2]


def test_other_number_of_clips_per_step_is_refused(make, tmp_path):
    fit(make(tmp_path, epochs=1))
    with pytest.raises(
        ExperimentError, match="4.*6.*grad_accumulation_factor"
    ) as error:
        fit(make(tmp_path, run_opts={"grad_accumulation_factor": 3}))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_other_clips_or_settings_are_refused(make, tmp_path):
    settings = tmp_path / "run" / "hyperparams.yaml"
    settings.parent.mkdir()
    settings.write_text("lr: 0.01\n")
    fit(make(tmp_path / "run", epochs=1))
    other = make(tmp_path / "run")
    with pytest.raises(ExperimentError, match="training clips was 24, now 25"):
        other.fit_steps(clips(25), clips(6))
    settings.write_text("lr: 0.02\n")  # as the start writes them
    with pytest.raises(ExperimentError, match="lr was 0.01, now 0.02"):
        fit(make(tmp_path / "run"))


def test_signal_after_the_last_checkpoint_stops_as_well(make, tmp_path, monkeypatch):
    brain = make(tmp_path, epochs=1)
    save_epoch = brain.save_epoch

    def signaled(*arguments, **options):
        save_epoch(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(brain, "save_epoch", signaled)
    with pytest.raises(Interrupted, match="step 3"):
        fit(brain)
