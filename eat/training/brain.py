"""What every Brain here needs beyond SpeechBrain's: the parts that go wrong silently.

Groups with their own rates, clipping over all of them, bad batches left out and
counted, randomness and rates as functions of the step, a log that a program can read.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from torch import Tensor, nn

from eat.errors import ExperimentError
from eat.experiment.results import write_results
from eat.training.checkpointer import CHECKPOINT_META
from eat.training.cost import training_cost
from eat.training.meter import IntervalMeter
from eat.training.metrics_logger import MetricsLogger
from eat.training.optim import clip_gradients, set_learning_rates
from eat.training.resuming import ResumableBrain
from eat.utils.distributed import all_gather_objects, any_rank
from eat.utils.random import batch_generator, step_seed

logger = logging.getLogger(__name__)

MIN_UNREADABLE = 10  # never too many


class EATBrain(ResumableBrain):
    """Common ground of pre-training and fine-tuning.

    A subclass sets :attr:`trainable_name` to the key of its one trainable module and
    implements :meth:`parameter_groups`, ``compute_forward`` and
    ``compute_objectives``.

    Besides the keys of :class:`ResumableBrain` the YAML file must have: ``lr``,
    ``min_lr``, ``scale_min_lr``, ``warmup_steps``, ``total_steps``, ``log_interval``,
    ``max_unreadable_share``.
    """

    trainable_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grad_norm = math.nan
        self.meter = IntervalMeter(self.rank, self.world_size)
        self.metrics_logger = MetricsLogger(self.hparams.output_folder)
        self.clips_of_step: list[str] = []  # ids, of this process
        self.unreadable_of_step: list[tuple[str, str]] = []  # ids and reasons
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("meter", self.meter)
            self.checkpointer.add_recoverable("metrics_logger", self.metrics_logger)

    @property
    def unwrapped_model(self) -> nn.Module:
        """The trainable module without its DDP or compile wrapper."""
        module = self.modules[self.trainable_name]
        module = getattr(module, "module", module)
        return getattr(module, "_orig_mod", module)

    def parameter_groups(self) -> list[dict]:
        """Optimizer groups, see :func:`eat.training.optim.parameter_groups`."""
        raise NotImplementedError

    # -- SpeechBrain's hooks, in the order in which they run ------------------------

    def before_checkpoint(self) -> None:
        """Bring together what each process has counted."""
        self.meter.gather()

    def init_optimizers(self) -> None:
        """Build the optimizer over the module's own groups."""
        self.optimizer = self.opt_class(self.parameter_groups())
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_fit_start(self) -> None:
        """Start or resume, and say which."""
        if self.checkpointer is None or self.checkpointer.find_checkpoint() is None:
            self._require_unfinished()
            self.metrics_logger.begin()  # killed before its first checkpoint
        super().on_fit_start()
        if self.optimizer_step:
            logger.info("Resumed after optimizer step %d", self.optimizer_step)

    def _require_unfinished(self) -> None:
        """Refuse to train anew over what a finished run has left."""
        results = Path(self.hparams.output_folder) / "results.json"
        if results.exists():
            raise ExperimentError(
                f"{results}: a finished run's, whose checkpoints are gone (give "
                "another --output_folder, or remove this file to train anew)"
            )

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Remember the epoch, of which every draw is a function."""
        self.epoch = epoch or 0
        if stage == sb.Stage.TRAIN:
            self.meter.resume()
        else:
            self.meter.pause()

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seed this step's draws and set its learning rate."""
        place = (self.hparams.seed, self.epoch, self.batch_number)
        self.generator = batch_generator(*place, device=self.device)
        torch.manual_seed(step_seed(*place))  # drop path draws from the global one
        self.clips_of_step += batch.ids
        self.unreadable_of_step += batch.failures
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
        """Leave it to the gradients: a loss that is not finite makes them so."""

    def optimizers_step(self) -> None:
        """Clip over all groups and step; a batch that is not finite is left out.

        SpeechBrain clips the first group only. A skipped batch still counts as a
        step, so that schedules and draws stay functions of the step.
        """
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.scaler.unscale_(self.optimizer)
        self.scale_gradients([p.grad for p in parameters if p.grad is not None])
        self.grad_norm = float(clip_gradients(parameters, self.max_grad_norm))
        finite = math.isfinite(self.grad_norm)
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self.meter.count(finite)
        if not finite:
            self.skip_step()
        self.clips_of_step = []
        if any_rank(bool(self.unreadable_of_step), self.device):
            self.log_unreadable()

    def scale_gradients(self, gradients: list[Tensor]) -> None:
        """Divide what was summed over the step by what is known at its end only."""

    def skip_step(self) -> None:
        """Write down a step whose gradient was not finite; stop if they go on."""
        clips = [clip for ids in all_gather_objects(self.clips_of_step) for clip in ids]
        reason = f"gradient norm {self.grad_norm}"
        self.metrics_logger.write_skipped_clips(self.optimizer_step, reason, clips)
        logger.warning(
            "Step %d: %s, batch left out (%d so far; its clips: skipped.jsonl)",
            self.optimizer_step,
            reason,
            self.meter.skipped,
        )
        # With fp16 a few in a row are how the loss scale finds its size.
        if self.meter.skipped_in_a_row <= self.nonfinite_patience:
            return
        newest = self.checkpointer and self.checkpointer.find_checkpoint()
        good = (
            f"{newest.path} is the last good checkpoint" if newest else "none is kept"
        )
        raise ExperimentError(
            f"step {self.optimizer_step}: the gradient was not finite for "
            f"{self.meter.skipped_in_a_row} steps in a row (skipped.jsonl; {good}; "
            "--nonfinite_patience bears more; with a lower --lr or --precision fp32 it "
            "is another run, for another --output_folder)"
        )

    def log_unreadable(self) -> None:
        """Write down clips that another stood in for; stop if they are too many."""
        for unreadable in all_gather_objects(self.unreadable_of_step):
            for clip, reason in unreadable:
                self.metrics_logger.write_skipped_clips(
                    self.optimizer_step, reason, [clip]
                )
                self.meter.unreadable += 1
        self.unreadable_of_step = []
        seen = self.optimizer_step * self.clips_per_step
        logger.warning(
            "%d damaged clips of %d (see skipped.jsonl)", self.meter.unreadable, seen
        )
        share = self.hparams.max_unreadable_share
        if self.meter.unreadable > max(share * seen, MIN_UNREADABLE):
            raise ExperimentError(
                f"step {self.optimizer_step}: {self.meter.unreadable} damaged clips of "
                f"{seen}, more than the share {share} (skipped.jsonl names them: mend "
                "the corpus, or allow more with --max_unreadable_share)"
            )

    def on_fit_batch_end(
        self, batch: Any, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Collect this batch's metrics, and log them every ``log_interval`` steps."""
        self.meter.add(self.batch_metrics(loss), clips=len(batch.ids))
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            record = {
                **self.means(),
                **self.interval_metrics(batch, outputs),
                "grad_norm": self.grad_norm,
                "lr": self.lr,
                "skipped_batches": self.meter.skipped,
                "unreadable_clips": self.meter.unreadable,
            }
            self.log("step", record)
            self.meter.reset()

    def means(self) -> dict[str, float]:
        """Means over the interval and all processes, and their clips per second."""
        parts = all_gather_objects(self.meter.means())
        sums = {key: sum(part[key] for part in parts) for key in parts[0]}
        rate = sums.pop("clips_per_second")
        means = {key: value / len(parts) for key, value in sums.items()}
        return {**means, "clips_per_second": rate}

    def batch_metrics(self, loss: Tensor) -> dict[str, Tensor]:
        """Scalars to average over an interval."""
        return {"loss": loss.detach()}

    def interval_metrics(self, batch: Any, outputs: Any) -> dict[str, float]:
        """Figures worth computing once an interval, of its last batch."""
        return {}

    def write_results(self, **results: Any) -> None:
        """Write ``results.json``; nothing if the run was complete before."""
        if self.was_complete():
            logger.info("Nothing left to do: the run was complete")
            return
        if self.last is None:  # killed between the last epoch and here
            meta = self.checkpointer.find_checkpoint().meta
            self.last = {k: v for k, v in meta.items() if k not in CHECKPOINT_META}
        write_results(
            self.hparams.output_folder,
            seed=self.hparams.seed,
            steps=self.optimizer_step,
            clips_seen=self.optimizer_step * self.clips_per_step,
            skipped_batches=self.meter.skipped,
            unreadable_clips=self.meter.unreadable,
            last=self.last,
            **results,
            cost=self.cost(),
        )

    def cost(self) -> dict[str, Any]:
        """Time, devices and memory of training, every part of the run included."""
        clips = self.optimizer_step * self.clips_per_step
        times = self.meter.seconds, self.meter.device_seconds
        return training_cost(*times, clips, self.device, self.world_size)

    def log(self, kind: str, record: dict[str, float]) -> None:
        """Append a record to ``metrics.jsonl`` and show it on the console."""
        self.metrics_logger.write(kind, self.epoch, self.optimizer_step, record)
