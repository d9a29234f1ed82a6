"""What lets a run stop anywhere and resume exactly: checkpoints, signals, results."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process
from torch import Tensor

from eat.data.dataset import Batch
from eat.errors import ExperimentError, Interrupted
from eat.experiment.results import has_results, write_results
from eat.training.checkpoint_files import own_metrics
from eat.training.checkpointer import CheckpointInterval
from eat.training.cost import training_cost
from eat.training.meter import IntervalMeter
from eat.training.metrics_logger import MetricsLogger
from eat.training.progress import (
    record_checkpoint,
    require_untrained,
    warn_of_older_checkpoint,
)
from eat.training.train_state import TrainState
from eat.utils.distributed import any_rank, world_size
from eat.utils.signals import Interruption

logger = logging.getLogger(__name__)


class ResumableBrain(sb.Brain):
    """A Brain whose run may be interrupted at any time.

    Re-running the command gives the same result as an uninterrupted run, with any
    number of processes: a checkpoint between two optimizer steps, which a subclass
    saves by :meth:`save_within_epoch` and :meth:`save_epoch`, is all that is needed.

    Attributes
    ----------
    last
        Metrics of the newest epoch; None before the first one of this process ends.
    """

    last: dict[str, Any] | None = None
    fingerprint: dict[str, object] = {}
    ckpt_interval_steps: int
    ckpt_interval_minutes: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = getattr(self, "rank", 0)
        self.world_size = world_size()
        self.meter = IntervalMeter(self.rank, self.world_size)
        self.folder = Path(self.hparams.output_folder)
        self.metrics_logger = MetricsLogger(
            self.folder, self.hparams.tensorboard, self.hparams.wandb
        )
        self.interruption = Interruption()
        self.train_state = TrainState()
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
        self.checkpoint_due = False

    @property
    def clips_per_step(self) -> int:
        """Clips in one optimizer step, over all ranks."""
        accumulated = self.hparams.batch_size * self.grad_accumulation_factor
        return accumulated * self.world_size

    def on_fit_start(self) -> None:
        """Start or resume."""
        if self.checkpointer is None or self.checkpointer.find_checkpoint() is None:
            require_untrained(self.folder)
            self.metrics_logger.clear()
        super().on_fit_start()
        self.resumed = self.train_state.fingerprint is not None
        if self.resumed:
            self.restore_state()
            logger.info("Resumed after optimizer step %d", self.optimizer_step)

    def fit_batch(self, batch: Batch) -> Tensor:
        """Train on one batch, then save a checkpoint if one is due."""
        self.meter.stop_waiting()
        loss = super().fit_batch(batch)
        if self.checkpoint_due and self.checkpointer is not None:
            # SpeechBrain adds this batch to the average once this method returns.
            self.save_within_epoch(self.update_average(loss, self.avg_train_loss))
        self.meter.start_waiting()
        return loss

    # -- checkpoints -------------------------------------------------------------------

    def save_within_epoch(self, average_loss: float) -> None:
        """Save a checkpoint within an epoch, then stop if a signal has requested it."""
        self.capture_state(average_loss)
        self.checkpointer.save_checkpoint(end_of_epoch=False, verbosity=logging.DEBUG)
        record_checkpoint(self.folder, self.optimizer_step)
        self.checkpointer.delete_within_epoch(self.hparams.keep_checkpoints)
        self.checkpoint_interval.start()
        self.saved_at = self.optimizer_step
        if any_rank(self.interruption.requested, device=self.device):
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
