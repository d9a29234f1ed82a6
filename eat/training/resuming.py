"""Where a run stands: epochs of fixed size, checkpoints, exact resume."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.checkpoints import (
    Checkpoint,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only
from torch.utils.data import DataLoader, Dataset, Sampler

from eat.data.dataset import collate
from eat.data.samplers import EpochSampler, RankBatches
from eat.data.workers import timeout, worker_errors
from eat.errors import ExperimentError, Interrupted
from eat.experiment.fingerprint import differences, identity
from eat.utils.distributed import any_rank, is_connection_error, world_size
from eat.utils.signals import Interruption, ignore_signals

logger = logging.getLogger(__name__)


@register_checkpoint_hooks
class ResumableBrain(sb.Brain):
    """A Brain that is cut off at any moment and ends as if it had not been.

    Everything is a function of (seed, epoch, number of the batch), so that a checkpoint
    between two optimizer steps is all that a run has to go back to. One process and
    several see the same batches: the n-th of an epoch is the same n-th, whoever takes
    it.

    The YAML file must have: ``seed``, ``output_folder``, ``steps_per_epoch``,
    ``batch_size``, ``num_workers``, ``epoch_counter``, ``keep_checkpoints``,
    ``keep_every_epochs``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = getattr(self, "rank", 0)
        self.world_size = world_size()
        self.last: dict[str, float] | None = None  # metrics of the newest epoch
        self.interruption = Interruption()
        self.saved_at: int | None = None  # optimizer step of the newest checkpoint
        if self.ckpt_interval_steps % self.grad_accumulation_factor:
            raise ExperimentError(
                f"ckpt_interval_steps {self.ckpt_interval_steps}: must be a multiple "
                f"of grad_accumulation_factor {self.grad_accumulation_factor}, or a "
                "resumed run would lose the gradients accumulated so far"
            )

    # -- what is trained on ----------------------------------------------------------

    @property
    def clips_per_step(self) -> int:
        """Clips in one optimizer step, over all processes."""
        accumulated = self.hparams.batch_size * self.grad_accumulation_factor
        return accumulated * self.world_size

    @property
    def clips_per_epoch(self) -> int:
        """Clips of one epoch's optimizer steps."""
        return self.hparams.steps_per_epoch * self.clips_per_step

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
            "worker_init_fn": ignore_signals,
            "timeout": timeout(self.hparams.num_workers),
            "pin_memory": "cuda" in self.device,
        }

    def fit_steps(
        self, train: Dataset, valid: Dataset | None, sampler: Sampler | None = None
    ) -> None:
        """Train over epochs of a fixed number of optimizer steps, judged on `valid`.

        The sampler gives :attr:`clips_per_epoch` training clips; by default each clip
        is seen equally often.
        """
        if sampler is None:
            sampler = EpochSampler(len(train), self.clips_per_epoch, self.hparams.seed)
        self.identity = identity(self.hparams.output_folder, train)
        batch, options = self.hparams.batch_size, self.loader_options
        self.train_sampler = RankBatches(sampler, batch, self.rank, self.world_size)
        # Not SpeechBrain's loader: that deals out clips, not batches, and goes on at a
        # place that is right for the same number of processes only.
        loader = DataLoader(train, batch_sampler=self.train_sampler, **options)
        kwargs = {**options, "batch_size": batch}
        with (
            self.interruption.watched(),
            self.lost_connections(),
            worker_errors(train, valid),
        ):
            self.fit(
                self.hparams.epoch_counter, loader, valid, valid_loader_kwargs=kwargs
            )
            self.stop_if_requested()  # what came during the last epoch's end

    def on_fit_start(self) -> None:
        """Start, or go on at the batch where the last part of the run stopped."""
        super().on_fit_start()
        self.train_sampler.start_from(self.step)

    # -- checkpoints -------------------------------------------------------------------

    def _fit_valid(
        self, valid_set: DataLoader | None, epoch: int, enable: bool
    ) -> None:
        """Validate, after keeping the epoch's training whatever befalls that.

        So a signal need not wait for a validation's end.
        """
        if valid_set is not None and self.checkpointer is not None:
            self.step = len(self.train_sampler)  # SpeechBrain has set it back by now
            self._save_intra_epoch_ckpt()
            self.step = 0
            valid_set = _Followed(valid_set, self.stop_if_requested)
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
        return any_rank(due or self.interruption.number is not None, self.device)

    def _save_intra_epoch_ckpt(self) -> None:
        """Save; leave if a signal asked for it."""
        self.before_checkpoint()
        super()._save_intra_epoch_ckpt()
        self.saved_at = self.optimizer_step
        if any_rank(self.interruption.number is not None, self.device):
            self._leave()

    def stop_if_requested(self) -> None:
        """Leave where a signal asked for it, a checkpoint being written."""
        if self.interruption.number is not None:
            self._leave()

    def _leave(self) -> None:
        raise Interrupted(
            f"ended by {self.interruption.name or 'a signal'} after optimizer step "
            f"{self.optimizer_step}, checkpoint written: the same command goes on",
            self.interruption.number or signal.SIGTERM,
        )

    def before_checkpoint(self) -> None:
        """Do what all processes must do together: only the main one writes."""

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        """Save the place in the run, in terms that any number of processes share."""
        place = {
            "optimizer_step": self.optimizer_step,
            "batches": self.step * self.world_size,
            "clips_per_step": self.clips_per_step,
            "avg_train_loss": float(self.avg_train_loss),
            "identity": self.identity,
        }
        Path(path).write_text(json.dumps(place), encoding="utf-8")

    @mark_as_loader
    def _recover(self, path: Path, end_of_epoch: bool) -> None:
        path = Path(path)
        place = json.loads(path.read_text(encoding="utf-8"))
        if differing := differences(place["identity"], self.identity):
            raise ExperimentError(
                f"{path.parent}: is of a run with other settings or clips "
                f"({differing}; give a new --output_folder, or what it had)"
            )
        if place["clips_per_step"] != self.clips_per_step:
            raise ExperimentError(
                f"{self.hparams.output_folder}: its steps have "
                f"{place['clips_per_step']} clips, these would have "
                f"{self.clips_per_step} ({self.world_size} process(es) x "
                f"batch_size {self.hparams.batch_size} x grad_accumulation_factor "
                f"{self.grad_accumulation_factor}); change the last, or give another "
                "--output_folder"
            )
        self.optimizer_step = place["optimizer_step"]
        self.step = place["batches"] // self.world_size
        self.avg_train_loss = place["avg_train_loss"]

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

        def within_epoch(checkpoint: Checkpoint) -> bool:
            return not checkpoint.meta["end-of-epoch"]

        def removable(checkpoint: Checkpoint) -> bool:
            epoch = checkpoint.meta.get("epoch")
            return not (every and epoch and epoch % every == 0)

        self.before_checkpoint()
        self.checkpointer.save_checkpoint(meta=meta)
        # Those of an epoch that has ended must not count among the newest.
        self.checkpointer.delete_checkpoints(num_to_keep=0, ckpt_predicate=within_epoch)
        self.checkpointer.delete_checkpoints(
            num_to_keep=self.hparams.keep_checkpoints,
            max_keys=[best] if best else None,
            ckpt_predicate=removable,
        )

    def was_complete(self) -> bool:
        """Whether an earlier call has finished the run and written its results."""
        written = (Path(self.hparams.output_folder) / "results.json").is_file()
        return self.last is None and written

    @contextmanager
    def lost_connections(self) -> Iterator[None]:
        """Say in one line that another process has gone, or of what signal both end."""
        try:
            yield
        except RuntimeError as error:
            if not is_connection_error(error):
                raise
            if self.saved_at == self.optimizer_step:
                self.stop_if_requested()
            raise ExperimentError(
                "another process of the run has ended, see what it said (the same "
                "command goes on from the last checkpoint)"
            ) from error


class _Followed:
    """A loader after each of whose batches something is called."""

    def __init__(self, loader: DataLoader, call: Callable[[], None]) -> None:
        self.loader = loader
        self.call = call

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield batch
            self.call()
