"""What every Brain here needs beyond SpeechBrain's: the parts that go wrong silently.

Groups with their own rates, clipping over all of them, bad batches left out and
counted, randomness and rates as functions of the step, a log that a program can read.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from eat.data.dataset import collate
from eat.data.sampling import EpochSampler
from eat.training.cost import training_cost
from eat.training.experiment import ExperimentError
from eat.training.meter import IntervalMeter
from eat.training.optim import clip_gradients, set_learning_rates
from eat.training.results import write_results
from eat.training.seeding import step_generator, step_seed

logger = logging.getLogger(__name__)

SPEECHBRAIN_META = {"unixtime", "end-of-epoch"}  # what it adds to a checkpoint's own


class EATBrain(sb.Brain):
    """Common ground of pre-training and fine-tuning.

    A subclass sets :attr:`trained` to the key of its one trainable module and
    implements :meth:`parameter_groups`, ``compute_forward`` and
    ``compute_objectives``.

    The YAML file must have: ``seed``, ``output_folder``, ``lr``, ``min_lr``,
    ``scale_min_lr``, ``warmup_steps``, ``total_steps``, ``steps_per_epoch``,
    ``batch_size``, ``num_workers``, ``epoch_counter``, ``log_interval``.
    """

    trained: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = getattr(self, "rank", 0)
        self.world_size = (
            torch.distributed.get_world_size() if self.distributed_launch else 1
        )
        self.last: dict[str, float] | None = None  # figures of the newest epoch
        self.grad_norm = math.nan
        self.meter = IntervalMeter()
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("meter", self.meter)
        if self.ckpt_interval_steps % self.grad_accumulation_factor:
            raise ExperimentError(
                f"ckpt_interval_steps {self.ckpt_interval_steps}: must be a multiple "
                f"of grad_accumulation_factor {self.grad_accumulation_factor}, or a "
                "resumed run would lose the gradients accumulated so far"
            )

    @property
    def bare(self) -> nn.Module:
        """The trainable module without its DDP or compile wrapper."""
        module = self.modules[self.trained]
        module = getattr(module, "module", module)
        return getattr(module, "_orig_mod", module)

    def parameter_groups(self) -> list[dict]:
        """Optimiser groups, see :func:`eat.training.optim.parameter_groups`."""
        raise NotImplementedError

    @property
    def clips_a_step(self) -> int:
        """Clips in one optimiser step, over all processes."""
        accumulated = self.hparams.batch_size * self.grad_accumulation_factor
        return accumulated * self.world_size

    @property
    def clips_an_epoch(self) -> int:
        """Clips of one epoch's optimiser steps."""
        return self.hparams.steps_per_epoch * self.clips_a_step

    @property
    def loader_options(self) -> dict[str, Any]:
        """Arguments of every data loader."""
        return {
            "batch_size": self.hparams.batch_size,
            "num_workers": self.hparams.num_workers,
            "collate_fn": collate,
            "pin_memory": "cuda" in self.device,
        }

    def fit_steps(
        self, train: Dataset, valid: Dataset, sampler: Sampler | None = None
    ) -> None:
        """Train over epochs of a fixed number of optimiser steps, judged on `valid`.

        The sampler gives :attr:`clips_an_epoch` training clips; by default each clip
        is seen equally often.
        """
        if sampler is None:
            sampler = EpochSampler(len(train), self.clips_an_epoch, self.hparams.seed)
        options = self.loader_options
        self.fit(
            self.hparams.epoch_counter,
            train,
            valid,
            train_loader_kwargs={**options, "sampler": sampler, "drop_last": True},
            valid_loader_kwargs=options,
        )

    # -- SpeechBrain's hooks, in the order in which they run ------------------------

    def init_optimizers(self) -> None:
        """Build the optimiser over the module's own groups."""
        self.optimizer = self.opt_class(self.parameter_groups())
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_fit_start(self) -> None:
        """Start or resume, and say which."""
        super().on_fit_start()
        if self.optimizer_step:
            logger.info("Resumed after optimiser step %d", self.optimizer_step)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Remember the epoch, of which every draw is a function."""
        self.epoch = epoch or 0
        if stage == sb.Stage.TRAIN:
            self.meter.go_on()
        else:
            self.meter.pause()

    def on_fit_batch_start(self, batch: Any, should_step: bool) -> None:
        """Seed this step's draws and set its learning rate."""
        position = (self.hparams.seed, self.epoch, self.step, self.rank)
        self.generator = step_generator(*position, device=self.device)
        torch.manual_seed(step_seed(*position))  # drop path draws from the global one
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
        """Count losses that are not finite, and stop in one line if they go on."""
        try:
            super().check_loss_isfinite(loss)
        except ValueError as error:
            raise ExperimentError(
                f"step {self.optimizer_step + 1}: the loss was not finite for more "
                f"than {self.nonfinite_patience} batches of this epoch (try a lower "
                "--lr or --precision fp32; --nonfinite_patience bears more)"
            ) from error

    def optimizers_step(self) -> None:
        """Clip over all groups and step; a batch that is not finite is left out.

        SpeechBrain clips the first group only. A skipped batch still counts as a
        step, so that schedules and draws stay functions of the step.
        """
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.scaler.unscale_(self.optimizer)
        self.grad_norm = float(clip_gradients(parameters, self.max_grad_norm))
        if math.isfinite(self.grad_norm):
            self.scaler.step(self.optimizer)
        else:
            self.meter.skipped += 1
            logger.warning(
                "Step %d: gradient norm %s, batch left out (%d so far)",
                self.optimizer_step + 1,
                self.grad_norm,
                self.meter.skipped,
            )
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def on_fit_batch_end(
        self, batch: Any, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Collect this batch's figures, and log them every ``log_interval`` steps."""
        self.meter.add(self.batch_figures(loss), clips=len(batch.ids))
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            record = {
                **self.meter.means(),
                **self.interval_figures(batch, outputs),
                "grad_norm": self.grad_norm,
                "lr": self.lr,
                "skipped_batches": self.meter.skipped,
            }
            self.log("step", record)
            self.meter.reset()

    def batch_figures(self, loss: Tensor) -> dict[str, Tensor]:
        """Scalars to average over an interval."""
        return {"loss": loss.detach()}

    def interval_figures(self, batch: Any, outputs: Any) -> dict[str, float]:
        """Figures worth computing once an interval, of its last batch."""
        return {}

    def make_dataloader(
        self, dataset: Dataset, stage: sb.Stage, *args: Any, **kwargs: Any
    ) -> torch.utils.data.DataLoader:
        """Make a loader, and keep the sampler of training so that epochs reach it.

        SpeechBrain calls ``set_epoch`` only on samplers that it made itself.
        """
        loader = super().make_dataloader(dataset, stage, *args, **kwargs)
        if stage == sb.Stage.TRAIN:
            self.train_sampler = loader.sampler
        return loader

    def _should_save_intra_epoch_ckpt(self, *args: Any) -> bool:
        """Save between accumulation windows only, whatever the clock says.

        A checkpoint within one would lose the gradients accumulated so far.
        """
        complete = self.step % self.grad_accumulation_factor == 0
        return complete and super()._should_save_intra_epoch_ckpt(*args)

    def save_epoch(self, meta: dict, **keep: Any) -> None:
        """Checkpoint at the end of an epoch.

        SpeechBrain resets the step counter after the hooks of a stage, so that
        without a validation stage the checkpoint would say "step N" of an epoch that
        has not begun.
        """
        self.step, self.avg_train_loss = 0, 0.0
        if self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(meta=meta, **keep)

    def was_complete(self) -> bool:
        """Whether an earlier call has finished the run and written its results."""
        written = (Path(self.hparams.output_folder) / "results.json").is_file()
        return self.last is None and written

    def write_results(self, **results: Any) -> None:
        """Write ``results.json``; nothing if the run was complete before."""
        if self.was_complete():
            logger.info("Nothing left to do: the run was complete")
            return
        if self.last is None:  # killed between the last epoch and here
            meta = self.checkpointer.find_checkpoint().meta
            self.last = {k: v for k, v in meta.items() if k not in SPEECHBRAIN_META}
        write_results(
            self.hparams.output_folder,
            seed=self.hparams.seed,
            steps=self.optimizer_step,
            clips_seen=self.optimizer_step * self.clips_a_step,
            skipped_batches=self.meter.skipped,
            last=self.last,
            **results,
            cost=self.cost(),
        )

    def cost(self) -> dict[str, Any]:
        """Time, devices and memory of training, every part of the run included."""
        clips = self.optimizer_step * self.clips_a_step
        return training_cost(self.meter.seconds, clips, self.device, self.world_size)

    # -- logging ---------------------------------------------------------------------

    def log(self, kind: str, record: dict[str, float]) -> None:
        """Append a record to ``metrics.jsonl`` and show it on the console."""
        if not if_main_process():
            return
        record = {key: _plain(value) for key, value in record.items()}
        where = {"kind": kind, "epoch": self.epoch, "step": self.optimizer_step}
        with open(
            Path(self.hparams.output_folder) / "metrics.jsonl", "a", encoding="utf-8"
        ) as file:
            file.write(json.dumps({**where, **record}) + "\n")
        shown = "  ".join(
            f"{key} {value:.4g}" for key, value in record.items() if value is not None
        )
        logger.info("%s %d  %s", kind, self.optimizer_step, shown)


def _plain(value: Any) -> float | str | None:
    """A JSON value; not-a-number becomes null."""
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
