"""The pre-training Brain: teacher updates, logs, model folder, resume, collapse."""

import json

import pytest
import torch
from recipe_modules import load_recipe
from speechbrain import Stage

import eat
from eat.data.dataset import collate
from eat.data.samplers import EpochSampler
from eat.errors import CollapseError, exit_on_error
from eat.evaluation.collapse import CollapseMonitor
from eat.pretraining.teacher import ema_decay

PretrainBrain = load_recipe("AudioSet").AudioSetPretrainBrain
FRAMES, DIM = 64, 16
EMA = {"ema_start": 0.9, "ema_end": 0.99, "ema_anneal_steps": 4}
STEP_METRICS = {
    "loss",
    "frame_loss",
    "utterance_loss",
    "prediction_std",
    "target_std",
    "between_clip_variance",
    "effective_rank",
    "grad_norm",
    "lr",
    "ema_decay",
    "clips_per_second",
    "data_share",
    "skipped_batches",
    "unreadable_clips",
}


class Killed(PretrainBrain):
    stop_at = None

    def on_fit_batch_start(self, batch, should_step):
        if (self.epoch, self.step) == self.stop_at:
            raise KeyboardInterrupt
        super().on_fit_batch_start(batch, should_step)


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(0)
    classes = torch.eye(2)
    return [
        {
            "id": str(i),
            "sig": torch.randn(9000 + 300 * i, generator=generator) * 0.1 * (i + 1),
            "target": classes[i % 2],
        }
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def make_brain(pretrain_brain):
    def make(
        folder, clips, brain_class=Killed, monitor=None, center_momentum=0.9, **run_opts
    ):
        changed = {"warmup_steps": 1, **EMA}
        if monitor is not None:
            changed["collapse_monitor"] = monitor
        brain = pretrain_brain(
            brain_class, folder, center_momentum, run_opts, **changed
        )
        brain.probe_sets = (clips[:4], clips[2:])
        return brain

    return make


def fit(brain, clips):
    brain.fit_steps(clips, clips[:2], EpochSampler(len(clips), 6, seed=1))
    return brain


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


class Watched(PretrainBrain):
    """Record the student's and the teacher's encoder after every batch."""

    def on_fit_start(self):
        super().on_fit_start()
        self.trace = [self.encoders()]
        self.ever_training = False

    def encoders(self):
        model = self.unwrapped_model
        return snapshot(model.student.encoder), snapshot(model.teacher.encoder)

    def on_fit_batch_end(self, *args):
        teacher = self.unwrapped_model.teacher
        self.ever_training |= any(module.training for module in teacher.modules())
        assert self.unwrapped_model.student.training
        super().on_fit_batch_end(*args)
        self.trace.append(self.encoders())


@pytest.fixture(scope="module")
def whole(make_brain, tmp_path_factory, clips):
    """An uninterrupted run of two epochs of three steps."""
    folder = tmp_path_factory.mktemp("whole")
    brain = fit(make_brain(folder, clips, Watched), clips)
    brain.folder = folder
    return brain


def check_ema(trace, decays):
    for (_, before), (student, after), decay in zip(
        trace[:-1], trace[1:], decays, strict=True
    ):
        for old, own, new in zip(before, student, after, strict=True):
            expected = decay * old.double() + (1 - decay) * own.double()
            torch.testing.assert_close(new.double(), expected, atol=1e-7, rtol=1e-7)


def test_teacher_update_has_the_decay_of_its_step(whole):
    decays = [ema_decay(step, 0.9, 0.99, 4) for step in range(1, 7)]
    assert decays[0] == pytest.approx(0.9225) and decays[3:] == [0.99] * 3
    check_ema(whole.trace, decays)
    # The student moved after the first step, whose learning rate is 0.
    for (before, _), (after, _) in zip(whole.trace[1:-1], whole.trace[2:], strict=True):
        assert not torch.equal(before[0], after[0])


def test_teacher_moves_once_per_optimizer_step(make_brain, tmp_path, clips):
    brain = make_brain(tmp_path, clips, Watched, grad_accumulation_factor=3)
    brain.hparams.warmup_steps = 0  # so that the first step moves the student
    fit(brain, clips)
    assert brain.optimizer_step == 2
    one, two = (ema_decay(step, 0.9, 0.99, 4) for step in (1, 2))
    # A decay of 1 means no update.
    check_ema(brain.trace, [1.0, 1.0, one, 1.0, 1.0, two])


def test_teacher_is_frozen(whole):
    teacher = whole.unwrapped_model.teacher
    assert not whole.ever_training
    assert not any(p.requires_grad for p in teacher.parameters())
    optimized = {id(p) for g in whole.optimizer.param_groups for p in g["params"]}
    assert optimized == {id(p) for p in whole.unwrapped_model.student.parameters()}
    assert not optimized & {id(p) for p in teacher.parameters()}
    assert teacher.center.abs().sum() > 0


def test_log(whole):
    lines = (whole.folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    kinds = [(r["kind"], r["epoch"], r["step"]) for r in records]
    assert kinds == [
        ("step", 1, 2),
        ("epoch", 1, 3),
        ("step", 2, 4),
        ("step", 2, 6),
        ("epoch", 2, 6),
    ]
    for record in records:
        metrics = {k: v for k, v in record.items() if k not in ("kind", "epoch")}
        assert all(isinstance(value, int | float) for value in metrics.values())
        if record["kind"] == "step":
            assert metrics.keys() - {"step"} == STEP_METRICS
            total = record["frame_loss"] + 6.0 * record["utterance_loss"]
            assert record["loss"] == pytest.approx(total, rel=1e-5)
            assert record["ema_decay"] == ema_decay(record["step"], 0.9, 0.99, 4)
            assert record["clips_per_second"] > 0
        else:
            assert metrics.keys() - {"step"} == {"valid_loss", "knn_mAP"}
            assert 0 <= record["knn_mAP"] <= 1
    keys = ("valid_loss", "knn_mAP", "epoch")
    assert whole.last == {key: records[-1][key] for key in keys}
    assert len((whole.folder / "train_log.txt").read_text().splitlines()) == 2


def test_validation_sees_the_same_masks_every_time(whole, clips):
    losses = []
    for _ in range(2):
        batch = collate(clips[:2])
        whole.step = 1
        whole.modules.eval()
        before = whole.unwrapped_model.teacher.center.clone()
        losses.append(whole.evaluate_batch(batch, Stage.VALID).item())
        assert torch.equal(before, whole.unwrapped_model.teacher.center)
    assert losses[0] == losses[1]


def test_model_folder_has_the_brains_weights(whole):
    loaded = eat.load_pretraining(whole.folder / "model")
    assert loaded.utterance_weight == 6.0
    state, expected = loaded.state_dict(), whole.unwrapped_model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    config = json.loads((whole.folder / "model" / "config.json").read_text())
    assert config["step"] == 6 and config["frontend"]["num_frames"] == FRAMES


@pytest.mark.parametrize("stop_at", [(1, 3), (2, 1), (2, 3)])
def test_killed_run_resumes_exactly(make_brain, whole, tmp_path, clips, stop_at):
    killed = make_brain(tmp_path, clips, ckpt_interval_steps=1)
    killed.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        fit(killed, clips)
    torch.manual_seed(99)  # another process has another global state
    resumed = fit(make_brain(tmp_path, clips, ckpt_interval_steps=1), clips)
    assert resumed.optimizer_step == whole.optimizer_step
    ours, theirs = (b.unwrapped_model.state_dict() for b in (whole, resumed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert "teacher.center" in theirs
    ours, theirs = (b.optimizer.state_dict() for b in (whole, resumed))
    assert ours["param_groups"] == theirs["param_groups"]
    for index, state in ours["state"].items():
        assert all(torch.equal(state[k], theirs["state"][index][k]) for k in state)
    assert resumed.last == whole.last


def test_clip_with_nan_does_not_spoil_the_weights(make_brain, tmp_path, clips):
    bad = {**clips[0], "sig": clips[0]["sig"] * torch.nan}
    brain = make_brain(tmp_path, clips)
    brain.hparams.log_interval = 1
    fit(brain, [bad, *clips[1:]])
    assert brain.train_state.skipped_steps == 2  # once in each epoch
    for module in brain.modules.values():
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [r for r in map(json.loads, lines) if r["kind"] == "step"]
    assert len(steps) == 6 and sum(r["loss"] is None for r in steps) == 2


def test_collapse_stops_the_run(make_brain, tmp_path, clips):
    monitor = CollapseMonitor(0.1, 0.1, stop_std=100.0, grace_steps=3)
    brain = make_brain(tmp_path, clips, monitor=monitor)
    with pytest.raises(CollapseError) as caught:
        fit(brain, clips)
    assert "step 4" in str(caught.value) and "target_std" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit, match="^error: "):
        with exit_on_error():
            raise caught.value


def test_run_killed_before_its_results_can_be_resumed(make_brain, tmp_path, clips):
    """Re-running the command of a trained run writes the missing file."""
    brain = make_brain(tmp_path, clips)
    fit(brain, clips)
    again = make_brain(tmp_path, clips)
    fit(again, clips)
    assert again.last is None
    again.write_results()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["last"] == pytest.approx(brain.last)
    assert written["steps"] == brain.optimizer_step


def test_unreadable_validation_clips_are_logged(make_brain, tmp_path, clips):
    """They do not stop the run: validation only monitors it."""
    bad = [{**clips[0], "failures": [("broken", "no sound")]}, *clips[1:]]
    brain = make_brain(tmp_path, bad, PretrainBrain)
    brain.probe_sets = (bad[:4], clips[2:])
    brain.fit_steps(clips, bad[:2], EpochSampler(len(clips), 6, seed=1))
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    expected = [{"step": s, "reason": "no sound", "clips": ["broken"]} for s in (3, 6)]
    assert [json.loads(line) for line in lines] == expected  # once an epoch
    assert brain.train_state.unreadable_clips == 0  # of those that train
