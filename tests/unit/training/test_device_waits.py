"""From a batch's arrival to the end of its step nothing waits for the device.

On a GPU the host issues the operations of a step ahead of their execution, until it
reads a value or needs a shape that depends on one. Here both are found on the CPU.
"""

import math
import sys
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from recipe_modules import load_recipe
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from eat.data.samplers import EpochSampler
from eat.evaluation.per_class import MultiLabelEvaluation
from eat.pretraining.masking import FlexibleBlockMasking

RECIPES = ("AudioSet", "ESC50", "SpeechCommands", "OwnData")
EVERYTHING = {
    "roll": True,
    "noise": True,
    "mixup_alpha": 0.8,
    "mixup_probability": 0.9,
    "spec_augment_ratio": 0.2,
    "label_smoothing": 0.1,
}

WAITING_OPERATIONS = {
    "_local_scalar_dense",  # item(), bool(), float(), int()
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "bincount",
}
# What is no operation for a tensor on the CPU.
READING_METHODS = {"tolist", "cpu", "numpy"}
COPIES = {"to", "tensor", "as_tensor"}  # to a device, unless non-blocking


class Waits(AssertionError):
    """Something has waited for the device."""


class Operations(TorchDispatchMode):
    """Refuse operations whose result is read, or has a shape that depends on values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::")
        operation, _, overload = name.partition(".")
        indices = args[1] if operation in ("index", "index_put", "index_put_") else ()
        if operation in WAITING_OPERATIONS or any(
            index is not None and index.dtype == torch.bool for index in indices
        ):
            raise Waits(name)
        if name == "repeat_interleave.Tensor" and not (kwargs or {}).get("output_size"):
            raise Waits(name)
        return function(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    """Refuse methods that read a tensor, and copies from the host that wait."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__, kwargs or {}
        values = (*args, *kwargs.values())
        copies = name in COPIES and any(
            isinstance(value, torch.device | str) for value in values
        )
        # Torch's own functions make sure that a tensor is where it is already.
        ours = not sys._getframe(1).f_globals["__name__"].startswith("torch.")
        if name in READING_METHODS or (
            copies and ours and not kwargs.get("non_blocking")
        ):
            raise Waits(name)
        return function(*args, **kwargs)


class Strict:
    """Mixin of a Brain whose steps must not wait before their end is read."""

    def fit_batch(self, batch):
        with ExitStack() as self.modes:
            self.modes.enter_context(Operations())
            self.modes.enter_context(Methods())
            return super().fit_batch(batch)

    def end_step(self):
        self.modes.close()
        super().end_step()

    def on_fit_batch_end(self, *args):
        super().on_fit_batch_end(*args)
        self.modes.close()  # between the batches of a step


class Offending:
    """Mixin of a Brain whose loss is looked at."""

    def compute_objectives(self, *args):
        loss = super().compute_objectives(*args)
        self.offense(loss.detach())
        return loss


OFFENSES = {
    "item": Tensor.item,
    "float": float,
    "if": bool,
    "isnan": lambda loss: math.isnan(loss),
    "tolist": Tensor.tolist,
    "cpu": Tensor.cpu,
    "to": lambda loss: loss.to("cpu"),
    "numpy": Tensor.numpy,
    "tensor": lambda loss: torch.tensor([1.0], device=loss.device),
    "nonzero": Tensor.nonzero,
    "where": lambda loss: torch.where(loss[None] > 0),
    "mask": lambda loss: loss[None][loss[None] > 0],
    "assignment": lambda loss: loss[None].__setitem__(loss[None] > 0, 1.0),
    "unique": lambda loss: loss[None].unique(),
}


@pytest.fixture(scope="module")
def clips():
    """Twelve clips of different lengths, one of them not finite, one unreadable."""
    generator = torch.Generator().manual_seed(0)
    found = [
        {
            "id": str(i),
            "sig": torch.randn(9000 + 300 * i, generator=generator) * 0.1,
            "target": torch.eye(3)[i % 3],
        }
        for i in range(12)
    ]
    found[5]["sig"] = found[5]["sig"] * torch.nan
    found[7]["failures"] = [("x7", "broken")]
    return found


def train(brain, clips):
    """Train on six batches of two clips."""
    brain.opt_class = partial(torch.optim.AdamW, fused=True)
    brain.hparams.log_interval = 100  # a log line waits, but nothing more often
    brain.fit_steps(clips, None, EpochSampler(len(clips), len(clips), seed=1))
    skipped = (brain.folder / "skipped.jsonl").read_text().splitlines()
    assert len(skipped) == 2  # the unreadable clip, and the step that was not finite
    state = brain.unwrapped_model.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())
    return brain


def strict(brain_class, *mixins):
    return type("StrictBrain", (Strict, *mixins, brain_class), {})


def one_epoch(make, brain_class, folder, accumulation=1, **changed):
    run_opts = {
        "max_grad_norm": 0.1,
        "grad_accumulation_factor": accumulation,
        "nonfinite_patience": 3,
    }
    return make(brain_class, folder, run_opts=run_opts, **changed)


@pytest.mark.parametrize("center_momentum", [None, 0.9])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_pretraining(pretrain_brain, clips, tmp_path, center_momentum, accumulation):
    recipe = load_recipe("AudioSet").AudioSetPretrainBrain
    brain = one_epoch(
        pretrain_brain,
        strict(recipe),
        tmp_path,
        accumulation,
        center_momentum=center_momentum,
        mask_sampler=FlexibleBlockMasking(0.8, 0.07, ((2, 2), (1, 3))),
    )
    brain.hparams.epoch_counter.limit = 1
    train(brain, clips)
    assert brain.optimizer_step == 6 // accumulation


@pytest.mark.parametrize("name", RECIPES)
def test_fine_tuning(finetune_brain, clips, tmp_path, name):
    recipe = getattr(load_recipe(name), f"{name}FinetuneBrain")
    brain = one_epoch(finetune_brain, strict(recipe), tmp_path, 2, **EVERYTHING)
    brain.evaluation = MultiLabelEvaluation()  # OwnData has both kinds
    brain.unwrapped_model.mask_padding = True
    assert train(brain, clips).optimizer_step == 3


@pytest.mark.parametrize("name", OFFENSES)
def test_a_wait_is_found(finetune_brain, clips, tmp_path, name):
    recipe = load_recipe("ESC50").ESC50FinetuneBrain
    brain = one_epoch(finetune_brain, strict(recipe, Offending), tmp_path)
    brain.offense = OFFENSES[name]
    with pytest.raises(Waits):
        train(brain, clips)
