"""Where a run stands: epochs of fixed size, checkpoints, exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpoint
from torch.utils.data import DataLoader, Dataset, Sampler

from eat.data.dataset import ClipDataset, collate
from eat.data.sampling import EpochSampler, ProcessBatches
from eat.training.interruption import Interrupted, Interruption
from eat.training.settings import ExperimentError

logger = logging.getLogger(__name__)

WORKER_TIMEOUT = 600  # seconds to wait for a batch before a data worker counts as hung


class ResumableBrain(sb.Brain):
    """A Brain that is cut off at any moment and ends as if it had not been.

    Everything is a function of (seed, epoch, number of the batch), so that a checkpoint
    between two optimiser steps is all that a run has to go back to. One process and
    several see the same batches: the n-th of an epoch is the same n-th, whoever takes
    it.

    The YAML file must have: ``seed``, ``output_folder``, ``steps_per_epoch``,
    ``batch_size``, ``num_workers``, ``epoch_counter``, ``keep_checkpoints``,
    ``keep_every_epochs``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = getattr(self, "rank", 0)
        self.world_size = (
            torch.distributed.get_world_size() if self.distributed_launch else 1
        )
        self.last: dict[str, float] | None = None  # figures of the newest epoch
        self.interruption = Interruption()
        if self.ckpt_interval_steps % self.grad_accumulation_factor:
            raise ExperimentError(
                f"ckpt_interval_steps {self.ckpt_interval_steps}: must be a multiple "
                f"of grad_accumulation_factor {self.grad_accumulation_factor}, or a "
                "resumed run would lose the gradients accumulated so far"
            )

    # -- what is trained on ----------------------------------------------------------

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
    def batch_number(self) -> int:
        """Number of this process's batch among all of the epoch, from 0."""
        return (self.step - 1) * self.world_size + self.rank

    @property
    def loader_options(self) -> dict[str, Any]:
        """Arguments of every data loader."""
        return {
            "num_workers": self.hparams.num_workers,
            "collate_fn": collate,
            "timeout": WORKER_TIMEOUT if self.hparams.num_workers else 0,
            "pin_memory": "cuda" in self.device,
        }

    def fit_steps(
        self, train: Dataset, valid: Dataset | None, sampler: Sampler | None = None
    ) -> None:
        """Train over epochs of a fixed number of optimiser steps, judged on `valid`.

        The sampler gives :attr:`clips_an_epoch` training clips; by default each clip
        is seen equally often.
        """
        if sampler is None:
            sampler = EpochSampler(len(train), self.clips_an_epoch, self.hparams.seed)
        batch, options = self.hparams.batch_size, self.loader_options
        self.train_sampler = ProcessBatches(sampler, batch, self.rank, self.world_size)
        with self.interruption.watched(), _worker_errors(train, valid):
            self.fit(
                self.hparams.epoch_counter,
                train,
                valid,
                train_loader_kwargs={**options, "batch_sampler": self.train_sampler},
                valid_loader_kwargs={**options, "batch_size": batch},
            )

    def _train_loader_specifics(self, dataset: Dataset, loader_kwargs: dict) -> dict:
        """Leave the loader as it is: SpeechBrain would deal out clips, not batches."""
        return loader_kwargs

    # -- checkpoints -------------------------------------------------------------------

    def _fit_valid(
        self, valid_set: DataLoader | None, epoch: int, enable: bool
    ) -> None:
        """Validate, after keeping the epoch's training whatever befalls that."""
        if valid_set is not None and self.checkpointer is not None:
            self._save_intra_epoch_ckpt()
        super()._fit_valid(valid_set, epoch, enable)

    def _should_save_intra_epoch_ckpt(self, last: float, steps_since: int) -> bool:
        """Save when it is time, or a signal came, between accumulation windows only.

        A checkpoint within one would lose the gradients accumulated so far.
        """
        if self.checkpointer is None or self.step % self.grad_accumulation_factor:
            return False
        minutes = (time.time() - last) / 60
        due = 0 < self.ckpt_interval_minutes < minutes
        due = due or 0 < self.ckpt_interval_steps <= steps_since
        return self.any_process(due or self.interruption.number is not None)

    def _save_intra_epoch_ckpt(self) -> None:
        """Save; leave if a signal asked for it."""
        super()._save_intra_epoch_ckpt()
        if self.any_process(self.interruption.number is not None):
            raise Interrupted(
                f"ended by {self.interruption.name or 'a signal'} after optimiser step "
                f"{self.optimizer_step}, checkpoint written: the same command goes on",
                self.interruption.number or 15,
            )

    def save_epoch(self, meta: dict, best: str | None = None) -> None:
        """Checkpoint at the end of an epoch, then delete what no rule keeps.

        Kept are the newest ``keep_checkpoints``, each of an epoch that is a multiple of
        ``keep_every_epochs`` (0: none), and those with the highest figure of the name
        `best`.
        """
        # SpeechBrain resets the step counter after the hooks of a stage: without a
        # validation stage the checkpoint would say "step N" of an epoch not begun.
        self.step, self.avg_train_loss = 0, 0.0
        if self.checkpointer is None:
            return
        every = self.hparams.keep_every_epochs

        def may_go(checkpoint: Checkpoint) -> bool:
            epoch = checkpoint.meta.get("epoch")
            return not (every and epoch and epoch % every == 0)

        self.checkpointer.save_and_keep_only(
            meta=meta,
            num_to_keep=self.hparams.keep_checkpoints,
            keep_recent=True,
            max_keys=[best] if best else None,
            ckpt_predicate=may_go,
        )

    def was_complete(self) -> bool:
        """Whether an earlier call has finished the run and written its results."""
        written = (Path(self.hparams.output_folder) / "results.json").is_file()
        return self.last is None and written

    # -- several processes -------------------------------------------------------------

    def any_process(self, flag: bool) -> bool:
        """Whether it is true in any process; all must ask."""
        if self.world_size == 1:
            return flag
        told = torch.tensor(float(flag), device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return bool(told)

    def of_all_processes(self, mine: Any) -> list[Any]:
        """What each process has, in order of rank; all must ask."""
        if self.world_size == 1:
            return [mine]
        parts = [None] * self.world_size
        torch.distributed.all_gather_object(parts, mine)
        return parts


@contextmanager
def _worker_errors(*datasets: Dataset) -> Iterator[None]:
    """Name the clips at which data workers died or hang."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        reading = [d.in_work() for d in datasets if isinstance(d, ClipDataset)]
        clips = ", ".join(chain.from_iterable(reading)) or "unknown"
        raise ExperimentError(
            f"{str(error).splitlines()[0]} (clips being read: {clips}; memory full, or "
            "storage that hangs? the same command goes on from the last checkpoint)"
        ) from error
