"""The common Brain: clipping, skipped steps, seeds, rates, exact resume, logs."""

import json
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from eat.data.samplers import EpochSampler
from eat.errors import ExperimentError
from eat.training.brain import EATBrain
from eat.training.checkpointer import AtomicCheckpointer
from eat.training.optim import warmup_cosine

SETTINGS = {
    "seed": 3,
    "lr": 0.1,
    "min_lr": 0.01,
    "scale_min_lr": False,
    "warmup_steps": 3,
    "total_steps": 12,
    "batch_size": 2,
    "num_workers": 0,
    "max_unreadable_share": 0.01,
    "tensorboard": False,
    "wandb": "none",
    "keep_checkpoints": 1,
    "keep_every_epochs": 0,
    "log_interval": 2,
}
CPU = {"device": "cpu", "noprogressbar": True}
CLIPS = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 6)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(6, 4)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        return self.out(self.dropout(self.hidden(x)))


class ToyBrain(EATBrain):
    """Denoise clips, with random numbers of the step's generator and the global one."""

    trainable_name = "model"
    stop_at = None  # (epoch, step) at which the run is killed

    def parameter_groups(self):
        parts = (self.unwrapped_model.hidden, self.unwrapped_model.out)
        return [
            {"params": list(part.parameters()), "lr_scale": 1.0, "weight_decay": 0.0}
            for part in parts
        ]

    def on_fit_batch_start(self, batch, should_step):
        if (self.epoch, self.step) == self.stop_at:
            raise KeyboardInterrupt
        super().on_fit_batch_start(batch, should_step)
        rates = {group["lr"] for group in self.optimizer.param_groups}
        self.seen.append((self.epoch, self.step, batch.ids, self.optimizer_step, rates))

    def on_fit_start(self):
        super().on_fit_start()
        self.seen = []

    def compute_forward(self, batch, stage):
        noise = torch.from_numpy(self.generator.normal(size=batch.wav.shape))
        return self.modules.model(batch.wav + noise.float())

    def compute_objectives(self, predictions, batch, stage):
        return (predictions - batch.wav).square().mean()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.last = {"loss": stage_loss}
        self.save_epoch({"epoch": epoch})


def clips(tensor=CLIPS):
    return [{"id": str(i), "sig": clip} for i, clip in enumerate(tensor)]


def make_brain(folder, brain_class=ToyBrain, epochs=2, optimizer=None, **run_opts):
    folder.mkdir(exist_ok=True)
    model, counter = ToyModel(), EpochCounter(epochs)
    checkpointer = AtomicCheckpointer(
        folder / "save", {"model": model, "epoch_counter": counter}
    )
    return brain_class(
        modules={"model": model},
        opt_class=optimizer or torch.optim.AdamW,
        hparams={**SETTINGS, "output_folder": str(folder), "epoch_counter": counter},
        run_opts={**CPU, **run_opts},
        checkpointer=checkpointer,
    )


def fit(brain, data=None, epoch_size=12):
    data = data or clips()
    sampler = EpochSampler(len(data), epoch_size, seed=3)
    brain.fit_steps(data, None, sampler)
    return brain


def weights(brain):
    return torch.cat([p.detach().flatten() for p in brain.unwrapped_model.parameters()])


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


sgd = partial(torch.optim.SGD, momentum=0.0)


def one_step(brain, first, second):
    """Take a step with constant gradients; return how far each part moved."""
    brain.init_optimizers()
    before = weights(brain)
    for group, value in zip(brain.optimizer.param_groups, (first, second), strict=True):
        group["lr"] = 1.0
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, value)
    brain.optimizers_step()
    brain.end_step()
    return (before - weights(brain)).split([30, 28])


def test_clipping_is_global_over_groups(tmp_path):
    brain = make_brain(tmp_path, optimizer=sgd, max_grad_norm=5.0)
    first, second = one_step(brain, 1.0, 1000.0)
    moved = torch.cat([first, second])
    assert moved.norm().item() == pytest.approx(5.0, rel=1e-5)
    assert (second[0] / first[0]).item() == pytest.approx(1000.0, rel=1e-4)
    assert brain.grad_norm == pytest.approx((30 * 1 + 28 * 1e6) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("limit", [0, -1])
def test_without_clipping_the_step_is_the_gradient(tmp_path, limit):
    brain = make_brain(tmp_path, optimizer=sgd, max_grad_norm=limit)
    first, second = one_step(brain, 1.0, 1000.0)
    assert torch.allclose(first, torch.tensor(1.0), atol=1e-6)
    assert torch.allclose(second, torch.tensor(1000.0), rtol=1e-6)


def test_step_that_is_not_finite_is_skipped_and_counted(tmp_path):
    data = CLIPS.clone()
    data[7] = torch.nan
    trace = {}

    class Watched(ToyBrain):
        def optimizers_step(self):
            before = weights(self).clone()
            super().optimizers_step()
            trace[self.optimizer_step] = not torch.equal(before, weights(self))

    brain = fit(make_brain(tmp_path, Watched, epochs=1), clips(data), epoch_size=24)
    [bad] = [step for _, step, ids, _, _ in brain.seen if "7" in ids]
    assert 2 < bad < 11  # it has neighbors on both sides
    # Step 1 has a rate of min_lr, so it moves as well.
    assert trace == {step: step != bad for step in range(1, 13)}
    assert brain.optimizer_step == 12
    assert weights(brain).isfinite().all()
    counts = {r["step"]: r["skipped_batches"] for r in records(tmp_path)}
    assert counts == {s: int(s >= bad) for s in range(2, 13, 2)}
    brain.write_results()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["skipped_batches"] == 1 and results["clips_seen"] == 24


def test_too_many_skipped_steps_stop_the_run(tmp_path):
    brain = make_brain(tmp_path, nonfinite_patience=1)
    with pytest.raises(ExperimentError, match="step 2.*--nonfinite_patience") as error:
        fit(brain, clips(CLIPS * torch.nan))
    assert "\n" not in str(error.value)


def test_loss_that_is_not_finite_stops_the_run_though_its_gradient_is(tmp_path):
    class Empty(ToyBrain):
        def compute_objectives(self, predictions, batch, stage):
            return super().compute_objectives(predictions, batch, stage) + torch.nan

    brain = make_brain(tmp_path, Empty, nonfinite_patience=1)
    with pytest.raises(ExperimentError, match="step 2.*--nonfinite_patience"):
        fit(brain, clips(CLIPS))


def test_seed_depends_on_rank_epoch_and_step(tmp_path):
    draws = set()
    brain = make_brain(tmp_path)
    brain.init_optimizers()
    brain.seen, brain.world_size = [], 2
    for rank, epoch, step in [(0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2)]:
        brain.rank, brain.epoch, brain.step = rank, epoch, step
        brain.on_fit_batch_start(SimpleNamespace(ids=[], failures=[]), True)
        own = brain.generator.random()
        draws |= {("own", own), ("global", torch.rand(1).item())}
    assert len(draws) == 8


def test_resume_after_an_epoch_starts_at_the_next_one(tmp_path):
    brain = make_brain(tmp_path)
    brain.stop_at = (2, 1)
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    resumed = fit(make_brain(tmp_path))
    assert [(epoch, step) for epoch, step, *_ in resumed.seen] == [
        (2, step) for step in range(1, 7)
    ]
    assert resumed.optimizer_step == 12


def test_checkpoint_interval_must_fit_the_accumulation(tmp_path):
    with pytest.raises(ExperimentError, match="ckpt_interval_steps 3.*factor 2"):
        make_brain(tmp_path, ckpt_interval_steps=3, grad_accumulation_factor=2)


def test_timed_checkpoints_are_between_optimizer_steps(tmp_path):
    saved = []

    class Watched(ToyBrain):
        def save_within_epoch(self, average_loss):
            saved.append((self.epoch, self.step))

    run_opts = {"ckpt_interval_minutes": 1e-9, "grad_accumulation_factor": 3}
    fit(make_brain(tmp_path, Watched, **run_opts))
    assert saved == [(1, 3), (1, 6), (2, 3), (2, 6)]


def test_sampler_is_given_the_epoch(tmp_path):
    brain = fit(make_brain(tmp_path))
    first, second = ([i for e, _, i, *_ in brain.seen if e == n] for n in (1, 2))
    # Two halves of one shuffle of the 24 clips.
    assert sorted(int(i) for ids in first + second for i in ids) == list(range(24))


def test_learning_rate_is_a_function_of_the_optimizer_step(tmp_path):
    brain = fit(make_brain(tmp_path, grad_accumulation_factor=2))
    assert len(brain.seen) == 12 and brain.optimizer_step == 6
    for _, _, _, optimizer_step, rates in brain.seen:
        assert rates == {warmup_cosine(optimizer_step, 0.1, 3, 12, 0.01)}
    logged = {r["step"]: r["lr"] for r in records(tmp_path)}
    # Logged is the rate with which the step was taken.
    assert logged == {s: warmup_cosine(s - 1, 0.1, 3, 12, 0.01) for s in (2, 4, 6)}


@pytest.mark.parametrize("stop_at", [(1, 4), (1, 6), (2, 1), (2, 6)])
def test_killed_run_resumes_exactly(tmp_path, stop_at):
    run_opts = {"ckpt_interval_steps": 2, "grad_accumulation_factor": 2}
    whole = fit(make_brain(tmp_path / "whole", **run_opts))
    killed = make_brain(tmp_path / "parts", **run_opts)
    killed.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        fit(killed)
    torch.manual_seed(99)  # another process has another global state
    resumed = fit(make_brain(tmp_path / "parts", **run_opts))
    # It resumed from the last checkpoint, not from the start.
    assert len(resumed.seen) == 12 - 6 * (stop_at[0] - 1) - (stop_at[1] - 1) // 2 * 2
    assert torch.equal(weights(whole), weights(resumed))
    ours, theirs = (b.optimizer.state_dict()["state"] for b in (whole, resumed))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
    assert resumed.last == whole.last


def test_logged_loss_is_the_mean_of_its_interval(tmp_path):
    losses = []

    class Watched(ToyBrain):
        def compute_objectives(self, *args):
            losses.append(super().compute_objectives(*args))
            return losses[-1]

    fit(make_brain(tmp_path, Watched, epochs=1))
    means = torch.stack(losses).view(3, 2).mean(dim=1).tolist()
    assert [r["loss"] for r in records(tmp_path)] == pytest.approx(means)


def test_log_continues_after_an_interruption(tmp_path):
    run_opts = {"ckpt_interval_steps": 3}
    data = CLIPS.clone()
    data[0] = torch.nan  # skipped before the checkpoint, and still counted after
    whole = fit(make_brain(tmp_path / "whole", **run_opts), clips(data))
    killed = make_brain(tmp_path / "parts", **run_opts)
    killed.stop_at = (2, 4)  # one step into an interval of two
    with pytest.raises(KeyboardInterrupt):
        fit(killed, clips(data))
    fit(make_brain(tmp_path / "parts", **run_opts), clips(data))

    def metrics(folder):
        timeless = {"clips_per_second": None, "data_share": None}
        return [{**record, **timeless} for record in records(folder)]

    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert metrics(tmp_path / "whole")[-1]["skipped_batches"] == 1
    assert whole.train_state.skipped_steps == 1


def test_complete_run_has_nothing_left_to_do(tmp_path):
    fit(make_brain(tmp_path)).write_results()
    before = (tmp_path / "results.json").read_text()
    again = fit(make_brain(tmp_path))
    again.write_results()
    assert again.seen == [] and (tmp_path / "results.json").read_text() == before


def test_slow_loader_shows_in_the_log(tmp_path):
    class Slow(list):
        def __getitem__(self, index):
            time.sleep(0.05)
            return super().__getitem__(index)

    fit(make_brain(tmp_path / "slow", epochs=1), Slow(clips()))
    fit(make_brain(tmp_path / "fast", epochs=1))
    slow, fast = (
        [record["data_share"] for record in records(tmp_path / name)]
        for name in ("slow", "fast")
    )
    assert all(0.5 < share < 1 for share in slow[1:])
    assert all(0 < share < 0.5 for share in fast)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [None, 7])
def test_scaled_losses_give_the_same_steps(tmp_path, fused, bad):
    """As in fp16 on a GPU; a power of two changes no bit of a gradient."""
    data = CLIPS.clone()
    if bad is not None:
        data[bad] = torch.nan
    adam = partial(torch.optim.AdamW, fused=fused)
    plain, scaled = (
        make_brain(tmp_path / name, epochs=1, optimizer=adam, max_grad_norm=0.5)
        for name in ("plain", "scaled")
    )
    scaled.scaler = torch.GradScaler("cpu", init_scale=1024.0)
    for brain in (plain, scaled):
        fit(brain, clips(data), epoch_size=24)
    assert torch.equal(weights(plain), weights(scaled))
    assert scaled.train_state.skipped_steps == (bad is not None)
    assert scaled.scaler.get_scale() == (1024.0 if bad is None else 512.0)
    norms = [[r["grad_norm"] for r in records(b.folder)] for b in (plain, scaled)]
    assert norms[0] == norms[1]
