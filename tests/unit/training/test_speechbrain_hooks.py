"""What the Brains rely on in SpeechBrain beyond its documented methods.

Another minor version must be checked against this list before it is allowed.
"""

import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer

from eat.training.brain import EATBrain
from eat.training.checkpoint_files import CHECKPOINT_META
from eat.training.checkpointer import AtomicCheckpointer

CHECKED_VERSION = (1, 1)
PRIVATE_OVERRIDES = set()  # methods of SpeechBrain's that begin with an underscore


def private_overrides(cls, base):
    private = {name for name in vars(base) if name[0] == "_" and name[1] != "_"}
    ours = {name for parent in cls.__mro__ for name in vars(parent)}
    before = {name for parent in base.__mro__ for name in vars(parent)}
    changed = {
        name
        for name in private & ours & before
        if getattr(cls, name) is not getattr(base, name)
    }
    return changed


def test_version_is_one_that_was_checked():
    found = tuple(int(part) for part in sb.__version__.split(".")[:2])
    assert found == CHECKED_VERSION, "check this file against the new version"


def test_no_private_method_is_overridden():
    assert private_overrides(EATBrain, sb.Brain) == PRIVATE_OVERRIDES
    assert private_overrides(AtomicCheckpointer, Checkpointer) == PRIVATE_OVERRIDES


def make_brain(folder, brain_class=sb.Brain, **changed):
    run_opts = {"device": "cpu", "noprogressbar": True, **changed}
    return brain_class(
        modules={"model": torch.nn.Linear(1, 1)},
        opt_class=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        hparams={"output_folder": str(folder)},
        run_opts=run_opts,
        checkpointer=Checkpointer(folder / "save"),
    )


def test_attributes_of_the_brain(tmp_path):
    brain = make_brain(tmp_path)
    # The Brain's own record has this name, so that ours replaces it.
    assert list(brain.checkpointer.recoverables) == ["brain"]
    assert (brain.step, brain.optimizer_step, brain.avg_train_loss) == (0, 0, 0.0)
    assert (brain.ckpt_interval_steps, brain.ckpt_interval_minutes) == (0, 0)
    assert brain.grad_accumulation_factor == 1 and brain.train_sampler is None
    for name in ("scaler", "optimizers_dict", "evaluation_ctx", "nonfinite_patience"):
        assert hasattr(brain, name), name


class Recorder(sb.Brain):
    """Record which hooks are called, and the number of the batch then."""

    def compute_forward(self, batch, stage):
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().mean()

    def record(self, name):
        self.calls.append((name, self.step))

    def fit_batch(self, batch):
        self.average = self.avg_train_loss
        loss = super().fit_batch(batch)
        assert self.avg_train_loss == self.average  # this batch is not in it yet
        self.record("fit_batch")
        return loss

    def evaluate_batch(self, batch, stage):
        self.record("evaluate_batch")
        return super().evaluate_batch(batch, stage)

    def on_stage_start(self, stage, epoch=None):
        self.record(f"start {stage.name}")

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.record(f"end {stage.name}")
        if stage == sb.Stage.TRAIN:
            assert stage_loss == self.avg_train_loss > 0

    def _save_intra_epoch_ckpt(self):
        raise AssertionError("no interval was given")


class Sampler(list):
    epochs = ()

    def set_epoch(self, epoch):
        self.epochs = (*self.epochs, epoch)


def test_order_of_the_hooks(tmp_path):
    brain = make_brain(tmp_path, Recorder)
    brain.calls, brain.train_sampler = [], Sampler()
    loader = torch.utils.data.DataLoader(torch.ones(4, 1), 2)
    brain.fit(range(1, 3), loader, loader)
    epoch = [
        ("start TRAIN", 0),
        ("fit_batch", 1),
        ("fit_batch", 2),
        ("end TRAIN", 2),  # a checkpoint saved here is that of the epoch's last batch
        ("start VALID", 0),
        ("evaluate_batch", 1),
        ("evaluate_batch", 2),
        ("end VALID", 0),
    ]
    assert brain.calls == 2 * epoch
    assert brain.train_sampler.epochs == (1, 2)


def test_only_the_first_group_is_clipped(tmp_path):
    """The reason for our own ``optimizers_step``: remove it when this fails."""
    brain = make_brain(tmp_path, max_grad_norm=1.0)
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameter]} for parameter in parameters]
    brain.optimizers_dict = {"optimizer": torch.optim.SGD(groups, lr=1.0)}
    for parameter in parameters:
        parameter.grad = torch.full((1,), 100.0)
    brain.optimizers_step()
    assert [round(-p.item()) for p in parameters] == [1, 100]


def test_checkpoints_are_as_the_checkpointer_expects(tmp_path):
    checkpointer = Checkpointer(tmp_path, {"model": torch.nn.Linear(1, 1)})
    saved = checkpointer.save_checkpoint(name="a", end_of_epoch=False)
    assert isinstance(saved, Checkpoint)
    assert saved._fields == ("path", "meta", "paramfiles")
    assert saved.path == tmp_path / "CKPT+a"  # below `checkpoints_dir`
    assert saved.meta.keys() == CHECKPOINT_META and not saved.meta["end-of-epoch"]
    assert sorted(path.name for path in saved.path.iterdir()) == [
        "CKPT.yaml",
        "model.ckpt",
    ]
