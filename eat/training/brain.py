"""The Brain that pre-training and fine-tuning share: the step and its data.

SpeechBrain provides the loops over epochs and batches. This class adds what it lacks or
gets wrong silently: gradient clipping over all parameter groups, skipping of steps that
are not finite, learning rates and random numbers as functions of the step, logs that a
program can read, and exact resume with any number of processes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eat.data.dataset import Batch, ClipDataset, collate
from eat.data.samplers import EpochSampler, RankBatches, WeightedSampler
from eat.data.workers import ClipLoader, worker_errors
from eat.training.acceleration import loader_options, set_backends
from eat.training.inputs import run_fingerprint
from eat.training.model_texts import model_texts
from eat.training.optim import (
    clip_divisor,
    gradient_norm,
    set_learning_rates,
    step_unless,
)
from eat.training.resumable import ResumableBrain
from eat.training.skips import SkipMonitor
from eat.utils.distributed import any_rank, connection_errors
from eat.utils.random import batch_generator, step_seed

logger = logging.getLogger(__name__)


class EATBrain(ResumableBrain):
    """Train one module over epochs of a fixed number of optimizer steps.

    Everything random is a function of (seed, epoch, number of the batch), and the n-th
    batch of an epoch holds the same clips whatever the number of processes. From a
    batch's arrival to the end of its step the host waits for the device once, to read
    what :meth:`optimizers_step` has decided there.

    A subclass sets :attr:`trainable_name` to the key of its one trainable module and
    implements :meth:`parameter_groups`, ``compute_forward`` and
    ``compute_objectives``.

    The YAML file must have: ``seed``, ``output_folder``, ``batch_size``,
    ``steps_per_epoch``, ``epoch_counter``, ``num_workers``, ``max_unreadable_share``,
    ``lr``, ``min_lr``, ``scale_min_lr``, ``warmup_steps``, ``total_steps``,
    ``log_interval``, ``tensorboard``, ``wandb``, ``keep_checkpoints``,
    ``keep_every_epochs``.

    Attributes
    ----------
    epoch
        The current epoch, from 1; 0 in a test.
    generator
        Generator for the random numbers of the current training batch.
    grad_norm
        Norm of the newest step's gradients; NaN if the step was skipped.
    """

    trainable_name: str
    has_validation = False
    compile: bool
    compile_module_keys: list[str] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grad_norm = math.nan
        self.step_loss: Tensor | float = 0.0  # sum over the batches of a step
        self.skips = SkipMonitor(self.train_state, self.metrics_logger)
        # By default SpeechBrain compiles all modules, in as many pieces as it takes.
        self.compile_using_fullgraph = True
        if self.compile and self.compile_module_keys is None:
            self.compile_module_keys = [self.trainable_name]

    @classmethod
    def from_hparams(cls, hparams: dict, run_opts: dict[str, Any]) -> EATBrain:
        """Build the Brain from the objects of a YAML file."""
        return cls(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
        )

    # -- the module to train -----------------------------------------------------------

    @property
    def unwrapped_model(self) -> nn.Module:
        """The trainable module without its DDP or compile wrapper."""
        module = self.modules[self.trainable_name]
        module = getattr(module, "module", module)
        return getattr(module, "_orig_mod", module)

    def model_for(self, stage: sb.Stage) -> nn.Module:
        """Return the trainable module; for evaluation without its wrappers.

        DDP synchronizes the ranks at every batch, but in evaluation they may have
        different numbers of batches; and their sizes differ, for each of which the
        compiler would start again.
        """
        if stage == sb.Stage.TRAIN:
            return self.modules[self.trainable_name]
        return self.unwrapped_model

    def parameter_groups(self) -> list[dict]:
        """Return optimizer groups, see :func:`eat.training.optim.parameter_groups`."""
        raise NotImplementedError

    # -- the data ----------------------------------------------------------------------

    @property
    def clips_per_epoch(self) -> int:
        """Clips in one epoch's optimizer steps."""
        return self.hparams.steps_per_epoch * self.clips_per_step

    @property
    def batch_number(self) -> int:
        """Number of this rank's batch among all batches of the epoch, from 0."""
        return (self.step - 1) * self.world_size + self.rank

    def loader_options(self, training: bool = False) -> dict[str, Any]:
        """Return arguments of a data loader."""
        return {
            "collate_fn": collate,
            "while_waiting": self.while_waiting,
            **loader_options(self.device, self.hparams.num_workers, training),
        }

    # -- training ----------------------------------------------------------------------

    def fit_steps(
        self,
        train: ClipDataset,
        valid: ClipDataset | None,
        sampler: EpochSampler | WeightedSampler | None = None,
    ) -> None:
        """Train for all epochs, or resume training, with a validation after each.

        Parameters
        ----------
        train
            Training clips.
        valid
            Validation clips; None for no validation.
        sampler
            Draws :attr:`clips_per_epoch` training clips per epoch; by default every
            clip is seen equally often.
        """
        if sampler is None:
            sampler = EpochSampler(len(train), self.clips_per_epoch, self.hparams.seed)
        self.has_validation = valid is not None
        clip_sets = {"training": train, "validation": valid, **self.other_clips()}
        pretrained = getattr(self.hparams, "pretrained", None)
        self.fingerprint = run_fingerprint(self.folder, clip_sets, sampler, pretrained)
        batch, options = self.hparams.batch_size, self.loader_options(training=True)
        self.train_sampler = RankBatches(sampler, batch, self.rank, self.world_size)
        # Not SpeechBrain's loader, which distributes clips rather than batches and can
        # only be resumed with the same number of processes.
        loader = ClipLoader(train, batch_sampler=self.train_sampler, **options)
        kwargs = {**self.loader_options(), "batch_size": batch}
        with (
            self.interruption.watch(),
            connection_errors(self.stop_if_saved),
            worker_errors(train, valid),
        ):
            self.fit(
                self.hparams.epoch_counter, loader, valid, valid_loader_kwargs=kwargs
            )
            self.stop_if_requested()  # by a signal during the end of the last epoch
            if self.resumed and self.has_validation:
                run_on_main(self.restore_model)

    def other_clips(self) -> dict[str, Sized | None]:
        """Return further lists of clips that the run's numbers depend on, by name."""
        return {}

    def restore_model(self) -> None:
        """Write the model folder from the checkpoint that it belongs to."""

    def on_fit_start(self) -> None:
        """Build the optimizer, then start or resume."""
        set_backends(self.device)
        super().on_fit_start()
        model = self.modules[self.trainable_name]
        if isinstance(model, DistributedDataParallel):
            # In every forward pass; but they are constant, or the same on all ranks.
            model.broadcast_buffers = False
        self.train_sampler.start_from(self.step)

    def init_optimizers(self) -> None:
        """Build the optimizer from :meth:`parameter_groups`."""
        self.optimizer = self.opt_class(self.parameter_groups())
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Keep the epoch's number, and measure the time of training only."""
        self.epoch = epoch or 0
        if stage == sb.Stage.TRAIN:
            self.meter.resume()
            self.checkpoint_interval.start()
        else:
            self.meter.pause()

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Save a checkpoint before validation: a signal may then end it early."""
        validates = stage == sb.Stage.TRAIN and self.has_validation
        if validates and self.checkpointer is not None:
            self.save_within_epoch(self.avg_train_loss)

    def evaluate_batch(self, batch: Batch, stage: sb.Stage) -> Tensor:
        """Evaluate one batch; a signal may stop a validation after any of them."""
        loss = super().evaluate_batch(batch, stage)
        self.stop_if_requested()
        return loss

    def on_fit_batch_start(self, batch: Batch, should_step: bool) -> None:
        """Seed the random numbers of this batch and set the learning rate."""
        place = (self.hparams.seed, self.epoch, self.batch_number)
        self.generator = batch_generator(*place)
        torch.manual_seed(step_seed(*place))  # drop path uses the global generator
        self.skips.add(batch)
        self.checkpoint_interval.batches += 1
        # Until an optimizer step says so: between the batches of one, a checkpoint
        # would lose the gradients accumulated so far.
        self.checkpoint_due = False
        self.lr = set_learning_rates(
            self.optimizer,
            self.optimizer_step,
            self.hparams.lr,
            self.hparams.warmup_steps,
            self.hparams.total_steps,
            self.hparams.min_lr,
            self.hparams.scale_min_lr,
        )

    def check_loss_isfinite(self, loss: Tensor) -> None:
        """Add up the losses of a step: they may be NaN though their gradients are not.

        They are looked at in :meth:`optimizers_step`: reading one here would make a GPU
        wait.
        """
        self.step_loss = self.step_loss + loss.detach()

    def optimizers_step(self) -> None:
        """Clip gradients over all groups and step, unless they are not finite.

        SpeechBrain clips the first group only. A skipped step still counts as a step,
        so that schedules and random numbers remain functions of the step. All is
        decided on the device; :meth:`end_step` reads it.
        """
        self.scaler.unscale_(self.optimizer)
        divisor = self.gradient_divisor()
        norm = gradient_norm(self.optimizer) / divisor
        flags = any_rank(
            ~(norm + self.step_loss).isfinite(),
            bool(self.skips.unreadable),
            self.interruption.requested or self.checkpoint_interval.is_over(),
            device=self.device,
        )
        divisor = divisor * clip_divisor(norm, self.max_grad_norm)
        step_unless(flags[0], self.optimizer, divisor)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self.step_loss = 0.0
        self.step_result = torch.cat([norm[None], flags])

    def gradient_divisor(self) -> Tensor | float:
        """Return what to divide a step's gradient by, known at its end only."""
        return 1.0

    def end_step(self) -> None:
        """Read what the device has decided, and count, log or stop accordingly."""
        norm, skipped, unreadable, due = self.step_result.tolist()
        self.grad_norm = math.nan if skipped else norm
        self.checkpoint_due = bool(due)
        step, patience = self.optimizer_step, self.nonfinite_patience
        self.skips.end_step(step, self.grad_norm, patience, self.checkpointer)
        if unreadable:
            clips, share = step * self.clips_per_step, self.hparams.max_unreadable_share
            self.skips.log_unreadable(step, clips, share)

    def on_fit_batch_end(
        self, batch: Batch, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Collect the batch's metrics, and log them every ``log_interval`` steps."""
        self.meter.add(self.batch_metrics(outputs, loss), clips=len(batch.ids))
        if not should_step:
            return
        # Here, where SpeechBrain reads the loss next: the one wait for the device.
        self.end_step()
        if self.optimizer_step % self.hparams.log_interval == 0:
            record = {
                **self.meter.means_of_all_ranks(),
                **self.interval_metrics(batch, outputs),
                "grad_norm": self.grad_norm,
                "lr": self.lr,
                "skipped_batches": self.train_state.skipped_steps,
                "unreadable_clips": self.train_state.unreadable_clips,
            }
            self.log("step", record)
            self.meter.reset()

    def batch_metrics(self, outputs: Any, loss: Tensor) -> dict[str, Tensor]:
        """Return scalars of a batch to average over an interval."""
        return {"loss": loss.detach()}

    def interval_metrics(self, batch: Batch, outputs: Any) -> dict[str, float | Tensor]:
        """Return metrics that are computed once an interval, from its last batch."""
        return {}

    def log(self, kind: str, record: Mapping[str, float | Tensor]) -> None:
        """Append a record to ``metrics.jsonl`` and show it on the console."""
        self.metrics_logger.write(kind, self.epoch, self.optimizer_step, record)

    def model_texts(
        self, folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> dict[str, str]:
        """Return the card of the model, and the other texts, of an epoch's metrics."""
        data = str(getattr(self.hparams, "data_folder", ""))
        run = data, self.fingerprint, metrics
        return model_texts(folder, config, self.unwrapped_model, *run)
