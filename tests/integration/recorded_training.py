"""Replay of a recorded official training: its optimizer, its inputs, the comparison."""

import json
import math

import numpy as np
import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from eat.interop.fairseq_weights import our_name
from eat.pretraining.masking import Masks

FRAMES, MELS = 128, 128


class FairseqAdam(torch.optim.Optimizer):
    """fairseq's Adam: AdamW, except that eps is not bias-corrected."""

    def __init__(self, params, betas, eps):
        super().__init__(params, {"lr": 0.0, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.step_parameter(parameter, **group)

    def step_parameter(self, parameter, lr, betas, eps, weight_decay, **_):
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - betas[0])
        state["square"].lerp_(gradient.square(), 1 - betas[1])
        mean_correction, square_correction = (1 - b ** state["step"] for b in betas)
        size = lr * math.sqrt(square_correction) / mean_correction
        parameter.mul_(1 - lr * weight_decay)
        parameter.addcdiv_(state["mean"], state["square"].sqrt() + eps, value=-size)


class RecordedClips(torch.utils.data.Dataset):
    """The recorded spectrograms, flattened to `[T * F]`, in place of waveforms."""

    def __init__(self, clips, labels=None):
        self.clips = clips
        self.labels = labels

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        item = {"id": str(index), "sig": self.clips[index].flatten()}
        if self.labels is not None:
            item["target"] = self.labels[index]
        return item


class RecordedFrontend(nn.Module):
    """Return the spectrograms that :class:`RecordedClips` flattened."""

    def forward(self, wav, lengths):
        return wav.unflatten(1, (FRAMES, MELS))


class RecordedOrder(torch.utils.data.Sampler):
    """One epoch: the clips of all updates, in order."""

    def __init__(self, batches):
        self.order = [clip for batch in batches for clip in batch]

    def set_epoch(self, epoch):
        assert epoch == 1

    def __len__(self):
        return len(self.order)

    def part(self, start, stop):
        return np.array(self.order[start:stop])


class RecordedMasks:
    """A mask sampler that returns the recorded masks, update by update."""

    def __init__(self, masks):
        self.masks = iter(masks)

    def __call__(self, batch, clones, grid, generator):
        masks = Masks.from_mask(next(self.masks))
        assert masks.mask.shape == (batch * clones, grid[0] * grid[1])
        return masks


class StateRecorder:
    """Mixin of a Brain that keeps weights and learning rates of every update.

    Attributes
    ----------
    rates
        Learning rate of each group, by its scale, at each update.
    teachers
        Weights of the teacher that computes the targets of each update.
    states
        Weights of the student or classifier at the start and after each update.
    """

    def record(self):
        self.rates, self.teachers, self.states = [], [], []
        self.record_state()
        return self

    def record_state(self):
        model = self.unwrapped_model
        self.states.append(state_of(getattr(model, "student", model)))

    def on_fit_batch_start(self, batch, should_step):
        super().on_fit_batch_start(batch, should_step)
        self.rates.append(
            {group["lr_scale"]: group["lr"] for group in self.optimizer.param_groups}
        )
        if hasattr(self.unwrapped_model, "teacher"):
            self.teachers.append(state_of(self.unwrapped_model.teacher))

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        self.record_state()


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def settings(folder, optimizer, batch_size, updates):
    """Settings that both Brains read, from the official optimizer options."""
    return {
        "seed": 1,
        "output_folder": str(folder),
        "lr": optimizer["lr"],
        "min_lr": optimizer["min_lr"],
        "scale_min_lr": False,
        "warmup_steps": optimizer["warmup_updates"],
        "total_steps": optimizer["max_update"],
        "weight_decay": optimizer["weight_decay_of_every_tensor"],
        "decay_vectors": True,
        "batch_size": batch_size,
        "steps_per_epoch": updates,
        "epoch_counter": EpochCounter(1),
        "num_workers": 0,
        "log_interval": 1,
        "max_unreadable_share": 0.0,
        "tensorboard": False,
        "wandb": "none",
    }


def train(brain_class, modules, hparams, optimizer, clips, batches):
    """Train on the recorded batches, as a recipe trains on a corpus."""
    betas, eps = optimizer["betas"], optimizer["eps"]
    brain = brain_class(
        modules={"frontend": RecordedFrontend(), **modules},
        opt_class=lambda groups: FairseqAdam(groups, betas, eps),
        hparams=hparams,
        run_opts={
            "device": "cpu",
            "precision": "fp32",
            "noprogressbar": True,
            "max_grad_norm": optimizer["clip_norm"],
        },
    ).record()
    brain.fit_steps(clips, None, RecordedOrder(batches))
    assert brain.optimizer_step == len(batches)
    return brain


# -- the comparison ------------------------------------------------------------------


def logged(brain, name):
    """One metric of every update, from the run's ``metrics.jsonl``."""
    with open(f"{brain.hparams.output_folder}/metrics.jsonl") as lines:
        return [json.loads(line)[name] for line in lines]


def close(found, expected, rel=0.0, abs=0.0):
    np.testing.assert_allclose(found, expected, rtol=rel, atol=abs)


def official_state(path):
    """The student's weights of an official file, and the teacher's."""
    student = torch.load(path, weights_only=True)["model"]
    return student, student.pop("_ema", None)


def in_our_names(official):
    """Official entries under our names; a classifier's encoder is under ``model.``."""
    found = {}
    for name, value in official.items():
        if name.startswith(("fc_norm.", "head.")):
            found[name.removeprefix("fc_")] = value
        # The fixed positions have no counterpart.
        elif ours := our_name(name.removeprefix("model.")):
            found[ours] = value
    return found


def effective(name, tensor):
    """A tensor without the biases of the keys, which have no effect.

    They shift all scores of a query alike, so their gradient is rounding error, which
    Adam turns into full steps.
    """
    if not name.endswith("attn.qkv.bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, value])


def assert_same_weights(state, official, rel):
    """Every tensor is present and differs by at most `rel` of its norm."""
    expected = in_our_names(official)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        tensor, own = effective(name, tensor), effective(name, state[name])
        assert (own - tensor).norm() <= rel * tensor.norm(), name


def assert_same_norms(state, official, rel):
    expected = in_our_names(official)
    assert state.keys() == expected.keys()
    for name, norm in expected.items():
        # The recorded norms of these include the biases of the keys.
        if not name.endswith("attn.qkv.bias"):
            own = state[name].double().norm().item()
            assert own == pytest.approx(norm, rel=rel), name
