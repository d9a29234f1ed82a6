"""The state of a run survives a checkpoint, and refuses another run."""

import json
from dataclasses import asdict

import pytest
from speechbrain.utils.checkpoints import Checkpointer

from eat.errors import ExperimentError
from eat.training.train_state import TrainState


@pytest.fixture
def state():
    return TrainState(
        optimizer_step=7,
        batches=28,
        clips_per_step=48,
        average_loss=0.1 + 0.2,
        fingerprint={"lr": 0.1, "blocks": [5, 5]},
        skipped_steps=2,
        skipped_in_a_row=1,
        unreadable_clips=3,
        interval_sums=[{"loss": 1 / 3}, {"loss": float("nan")}],
        interval_batches=2.5,
        seconds=1.5,
        device_seconds=3.0,
        logs={"metrics.jsonl": [120, "e3b0"]},
    )


def test_every_field_survives_a_checkpoint(state, tmp_path):
    Checkpointer(tmp_path, {"brain": state}).save_checkpoint()
    loaded = TrainState()
    Checkpointer(tmp_path, {"brain": loaded}).recover_if_possible()
    assert repr(asdict(loaded)) == repr(asdict(state))  # NaN is not equal to NaN


def test_counts_skipped_steps():
    state = TrainState()
    for finite in (True, False, False, True, False):
        state.count_step(finite)
    assert (state.skipped_steps, state.skipped_in_a_row) == (3, 1)


def test_another_run_is_refused(state, tmp_path):
    state.require_same_run({"lr": 0.1, "blocks": [5, 5]}, 48, tmp_path)
    with pytest.raises(ExperimentError, match="lr was 0.1, now 0.2") as error:
        state.require_same_run({"lr": 0.2, "blocks": [5, 5]}, 48, tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ExperimentError, match="48.*96.*grad_accumulation_factor"):
        state.require_same_run(state.fingerprint, 96, tmp_path)


@pytest.mark.parametrize("change", [{"extra": 1}, {"seconds": None}])
def test_state_of_another_version_is_refused(state, tmp_path, change):
    path = tmp_path / "brain.ckpt"
    state.save(path)
    saved = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in saved.items() if v is not None}))
    with pytest.raises(ExperimentError, match=str(path)):
        TrainState().load(path, end_of_epoch=True)
