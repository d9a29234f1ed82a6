"""The Brain that pre-training and fine-tuning share.

SpeechBrain provides the loops over epochs and batches. This class adds what it lacks or
gets wrong silently: gradient clipping over all parameter groups, skipping of steps that
are not finite, learning rates and random numbers as functions of the step, logs that a
program can read, and exact resume with any number of processes.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch import Tensor, nn

from eat.data.dataset import Batch, ClipDataset, collate
from eat.data.samplers import EpochSampler, RankBatches, WeightedSampler
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import ExperimentError, Interrupted
from eat.experiment.results import has_results, write_results
from eat.training.checkpoint_files import own_metrics
from eat.training.checkpointer import CheckpointInterval
from eat.training.cost import training_cost
from eat.training.inputs import run_fingerprint
from eat.training.meter import IntervalMeter
from eat.training.metrics_logger import MetricsLogger
from eat.training.model_texts import model_texts
from eat.training.optim import clip_gradients, set_learning_rates
from eat.training.progress import (
    record_checkpoint,
    require_untrained,
    warn_of_older_checkpoint,
)
from eat.training.skips import SkipMonitor
from eat.training.train_state import TrainState
from eat.utils.distributed import any_rank, connection_errors, world_size
from eat.utils.random import batch_generator, step_seed
from eat.utils.signals import Interruption, ignore_signals

logger = logging.getLogger(__name__)


class EATBrain(sb.Brain):
    """Train one module over epochs of a fixed number of optimizer steps.

    A run may be interrupted at any time; re-running its command gives the same result
    as an uninterrupted run. Everything random is a function of (seed, epoch, number of
    the batch), and the n-th batch of an epoch holds the same clips whatever the number
    of processes, so a checkpoint between two optimizer steps is all that is needed.

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
    last
        Metrics of the newest epoch; None before the first one of this process ends.
    """

    trainable_name: str
    last: dict[str, Any] | None = None
    fingerprint: dict[str, object] = {}
    has_validation = False
    ckpt_interval_steps: int
    ckpt_interval_minutes: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = getattr(self, "rank", 0)
        self.world_size = world_size()
        self.grad_norm = math.nan
        self.step_loss: Tensor | float = 0.0  # sum over the batches of a step
        self.meter = IntervalMeter(self.rank, self.world_size)
        self.folder = Path(self.hparams.output_folder)
        self.metrics_logger = MetricsLogger(
            self.folder, self.hparams.tensorboard, self.hparams.wandb
        )
        self.interruption = Interruption()
        self.train_state = TrainState()
        self.skips = SkipMonitor(self.train_state, self.metrics_logger)
        if self.checkpointer is not None:
            # In place of SpeechBrain's own record, of the batches of one process.
            self.checkpointer.add_recoverable("brain", self.train_state)
        if self.ckpt_interval_steps % self.grad_accumulation_factor:
            raise ExperimentError(
                f"ckpt_interval_steps {self.ckpt_interval_steps}: must be a multiple "
                f"of grad_accumulation_factor {self.grad_accumulation_factor}, or a "
                "resumed run would lose the gradients accumulated so far"
            )
        self.saved_at: int | None = None  # optimizer step of the newest checkpoint
        self.checkpoint_interval = CheckpointInterval(
            self.ckpt_interval_steps, self.ckpt_interval_minutes
        )
        # Checkpoints within an epoch are saved in `fit_batch`, not by SpeechBrain: its
        # own may fall between two batches of an optimizer step.
        self.ckpt_interval_steps = self.ckpt_interval_minutes = 0

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
        """Return the trainable module; for evaluation without its DDP wrapper.

        DDP synchronizes the ranks at every batch, but in evaluation they may have
        different numbers of batches.
        """
        if stage == sb.Stage.TRAIN:
            return self.modules[self.trainable_name]
        return self.unwrapped_model

    def parameter_groups(self) -> list[dict]:
        """Return optimizer groups, see :func:`eat.training.optim.parameter_groups`."""
        raise NotImplementedError

    # -- the data ----------------------------------------------------------------------

    @property
    def clips_per_step(self) -> int:
        """Clips in one optimizer step, over all ranks."""
        accumulated = self.hparams.batch_size * self.grad_accumulation_factor
        return accumulated * self.world_size

    @property
    def clips_per_epoch(self) -> int:
        """Clips in one epoch's optimizer steps."""
        return self.hparams.steps_per_epoch * self.clips_per_step

    @property
    def batch_number(self) -> int:
        """Number of this rank's batch among all batches of the epoch, from 0."""
        return (self.step - 1) * self.world_size + self.rank

    @property
    def loader_options(self) -> dict[str, Any]:
        """Arguments of every data loader."""
        return {
            "num_workers": self.hparams.num_workers,
            "collate_fn": collate,
            "worker_init_fn": ignore_signals,
            "while_waiting": self.while_waiting,
            "pin_memory": "cuda" in self.device,
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
        batch, options = self.hparams.batch_size, self.loader_options
        self.train_sampler = RankBatches(sampler, batch, self.rank, self.world_size)
        # Not SpeechBrain's loader, which distributes clips rather than batches and can
        # only be resumed with the same number of processes.
        loader = ClipLoader(train, batch_sampler=self.train_sampler, **options)
        kwargs = {**options, "batch_size": batch}
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
        if self.checkpointer is None or self.checkpointer.find_checkpoint() is None:
            require_untrained(self.folder)
            self.metrics_logger.clear()
        super().on_fit_start()
        self.resumed = self.train_state.fingerprint is not None
        if self.resumed:
            self.restore_state()
            logger.info("Resumed after optimizer step %d", self.optimizer_step)
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

    def fit_batch(self, batch: Batch) -> Tensor:
        """Train on one batch, then save a checkpoint if one is due."""
        loss = super().fit_batch(batch)
        if self.checkpoint_due and self.checkpointer is not None:
            # SpeechBrain adds this batch to the average once this method returns.
            self.save_within_epoch(self.update_average(loss, self.avg_train_loss))
        return loss

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
        so that schedules and random numbers remain functions of the step.
        """
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.scaler.unscale_(self.optimizer)
        self.scale_gradients([p.grad for p in parameters if p.grad is not None])
        self.grad_norm = float(clip_gradients(parameters, self.max_grad_norm))
        nonfinite, unreadable, self.checkpoint_due = any_rank(
            self.device,
            not math.isfinite(self.step_loss),
            bool(self.skips.unreadable),
            self.interruption.requested or self.checkpoint_interval.is_over(),
        )
        if nonfinite:
            self.grad_norm = math.nan
        self.step_loss = 0.0
        if math.isfinite(self.grad_norm):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        step, patience = self.optimizer_step, self.nonfinite_patience
        self.skips.end_step(step, self.grad_norm, patience, self.checkpointer)
        if unreadable:
            clips, share = step * self.clips_per_step, self.hparams.max_unreadable_share
            self.skips.log_unreadable(step, clips, share)

    def scale_gradients(self, gradients: list[Tensor]) -> None:
        """Scale the gradients of a step by what is known at its end only."""

    def on_fit_batch_end(
        self, batch: Batch, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Collect the batch's metrics, and log them every ``log_interval`` steps."""
        self.meter.add(self.batch_metrics(outputs, loss), clips=len(batch.ids))
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
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

    # -- checkpoints -------------------------------------------------------------------

    def save_within_epoch(self, average_loss: float) -> None:
        """Save a checkpoint within an epoch, then stop if a signal has requested it."""
        self.capture_state(average_loss)
        self.checkpointer.save_checkpoint(end_of_epoch=False, verbosity=logging.DEBUG)
        record_checkpoint(self.folder, self.optimizer_step)
        self.checkpointer.delete_within_epoch(self.hparams.keep_checkpoints)
        self.checkpoint_interval.start()
        self.saved_at = self.optimizer_step
        if any_rank(self.device, self.interruption.requested)[0]:
            self._stop()

    def save_epoch(self, meta: dict, best: str | None = None) -> None:
        """Save a checkpoint at the end of an epoch, then delete old ones.

        Kept are the newest ``keep_checkpoints``, those of every epoch that is a
        multiple of ``keep_every_epochs`` (0: none), and those with the highest value of
        the metric `best`.
        """
        # SpeechBrain resets these after the hooks of a stage: without a validation the
        # checkpoint would say "batch N" of an epoch that has not started.
        self.step, self.avg_train_loss = 0, 0.0
        if self.checkpointer is None:
            return
        self.capture_state(average_loss=0.0)
        self.checkpointer.save_checkpoint(meta=meta)
        record_checkpoint(self.folder, self.optimizer_step)
        keep, every = self.hparams.keep_checkpoints, self.hparams.keep_every_epochs
        # Those within the epoch must not count among the newest.
        self.checkpointer.delete_within_epoch(keep, with_epochs=True)
        self.checkpointer.delete_epochs(keep, every, best)

    def capture_state(self, average_loss: float) -> None:
        """Bring :attr:`train_state` up to date; all ranks must call this."""
        state = self.train_state
        state.optimizer_step = self.optimizer_step
        state.batches = self.step * self.world_size
        state.clips_per_step = self.clips_per_step
        state.average_loss = float(average_loss)
        state.fingerprint = self.fingerprint
        state.capture_logs(self.meter, self.metrics_logger)

    def restore_state(self) -> None:
        """Continue from the :attr:`train_state` that a checkpoint held."""
        state, folder = self.train_state, self.checkpointer.checkpoints_dir
        state.require_same_run(self.fingerprint, self.clips_per_step, folder)
        self.optimizer_step = state.optimizer_step
        self.step = state.batches // self.world_size
        self.avg_train_loss = state.average_loss
        state.restore_meter(self.meter)
        if has_results(self.folder):  # it has logged more since
            self.metrics_logger.warn_of_changes(state.logs)
            return
        step, ended = state.optimizer_step, state.batches == 0
        older = if_main_process() and warn_of_older_checkpoint(self.folder, step)
        self.metrics_logger.resume(state.logs, step, ended, backup=older)
        record_checkpoint(self.folder, step)

    # -- how a run ends ----------------------------------------------------------------

    def stop_if_requested(self) -> None:
        """Stop if a signal has requested it; the newest checkpoint must be saved."""
        if self.interruption.requested:
            self._stop()

    def while_waiting(self) -> None:
        """Stop after a signal although no batch comes, see :class:`ClipLoader`."""
        if not self.interruption.requested:
            return
        # One rank alone can save a checkpoint, but not between batches of a step.
        alone = self.checkpointer is not None and self.world_size == 1
        if alone and self.step and self.step % self.grad_accumulation_factor == 0:
            if self.saved_at != self.optimizer_step:
                self.save_within_epoch(self.avg_train_loss)
            self._stop()
        self._stop("which waited for data, at most one interval is lost")

    def _stop(self, outcome: str = "checkpoint saved") -> None:
        raise Interrupted(
            f"stopped by {self.interruption.name or 'a signal'} after optimizer step "
            f"{self.optimizer_step}, {outcome}: re-run the same command to resume",
            self.interruption.number or signal.SIGTERM,
        )

    def stop_if_saved(self) -> None:
        """Stop if a signal has requested it and nothing would be lost."""
        if self.saved_at == self.optimizer_step:
            self.stop_if_requested()

    def was_complete(self) -> bool:
        """Return whether an earlier process had finished the run."""
        return self.last is None and has_results(self.folder)

    def model_texts(
        self, folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> dict[str, str]:
        """Return the card of the model, and the other texts, of an epoch's metrics."""
        data = str(getattr(self.hparams, "data_folder", ""))
        run = data, self.fingerprint, metrics
        return model_texts(folder, config, self.unwrapped_model, *run)

    def newest_metrics(self) -> dict[str, Any]:
        """Return the metrics of the newest epoch, of an earlier process perhaps."""
        if self.last is not None:
            return self.last
        return own_metrics(self.checkpointer.find_checkpoint().meta)

    def write_results(self, **results: Any) -> None:
        """Write ``results.json``, unless the run was complete before."""
        if self.was_complete():
            logger.info("Nothing left to do: the run was complete")
            return
        self.last = self.newest_metrics()
        write_results(
            self.folder,
            seed=self.hparams.seed,
            steps=self.optimizer_step,
            clips_seen=self.optimizer_step * self.clips_per_step,
            skipped_batches=self.train_state.skipped_steps,
            unreadable_clips=self.train_state.unreadable_clips,
            last=self.last,
            **results,
            cost=self.cost(),
        )

    def cost(self) -> dict[str, Any]:
        """Return time, devices and memory of training, over all parts of the run."""
        clips = self.optimizer_step * self.clips_per_step
        times = self.meter.seconds, self.meter.device_seconds
        return training_cost(*times, clips, self.device, self.world_size)
