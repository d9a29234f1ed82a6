"""The pre-training Brain: teacher updates, validation, model folders."""

from __future__ import annotations

import logging
import math
from collections.abc import Sized
from statistics import fmean
from typing import Any, cast

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from torch import Generator, Tensor
from torch.utils.data import BatchSampler, DataLoader
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, collate
from eat.data.workers import ClipLoader
from eat.evaluation.collapse import between_clip_variance, effective_rank, feature_std
from eat.evaluation.probing import knn_probe
from eat.interop.pretrained import save_model
from eat.model.operations import gflop, pretraining_operations
from eat.model.patching import grid_of
from eat.pretraining.masking import Masks
from eat.pretraining.model import EATForPreTraining, PretrainingOutput
from eat.pretraining.teacher import ema_decay
from eat.training.brain import EATBrain
from eat.training.optim import parameter_groups
from eat.utils.distributed import all_gather_objects, interleave
from eat.utils.random import CounterGenerator, clip_generators

logger = logging.getLogger(__name__)

PROBE_BATCH = 32


class PretrainBrain(EATBrain):
    """Pre-train ``modules.model``, an :class:`eat.pretraining.model.EATForPreTraining`.

    A recipe's subclass implements ``compute_forward``, which returns the
    :class:`eat.pretraining.model.PretrainingOutput` of a batch, and
    ``compute_objectives``, which returns its loss.

    Besides the keys of :class:`EATBrain` the YAML file must have: ``mask_sampler``,
    ``clones``, ``weight_decay``, ``decay_vectors``, ``ema_start``, ``ema_end``,
    ``ema_anneal_steps``, ``collapse_monitor``, ``keep_epoch_models``,
    ``train_logger``.

    Attributes
    ----------
    probe_sets
        Labeled clips (gallery, query) for a kNN score after every epoch; None if there
        are no labels.
    """

    trainable_name = "model"
    probe_sets: tuple[ClipDataset, ClipDataset] | None = None

    @property
    def unwrapped_model(self) -> EATForPreTraining:
        """The model without its DDP or compile wrapper."""
        return cast(EATForPreTraining, super().unwrapped_model)

    def parameter_groups(self) -> list[dict]:
        """Return the groups of the student; the teacher is not trained."""
        return parameter_groups(
            self.unwrapped_model.student,
            self.hparams.weight_decay,
            self.hparams.decay_vectors,
        )

    def clip_generators(self, batch: Batch, stage: sb.Stage) -> CounterGenerator:
        """Return the generators of the clips' masks and noise.

        They depend on the clip's place in the epoch only, not on the batch size or the
        number of processes. Validation uses the same ones in every epoch, so that its
        loss is comparable.
        """
        training = stage == sb.Stage.TRAIN
        epoch = self.epoch if training else 0
        number = self.batch_number if training else self.batch_number + 1
        first, clips = number * self.hparams.batch_size, len(batch.ids)
        return clip_generators(self.hparams.seed, epoch, first, clips, self.device)

    def draw_noise(self, masks: Masks, generators: CounterGenerator) -> Tensor:
        """Draw the noise at masked patches `[B*K, N, D]`, see `EATStudent.draw_noise`.

        Outside the model, which may be compiled: generators cannot be.
        """
        student = self.unwrapped_model.student
        return student.draw_noise(len(generators), masks, generators)

    def on_fit_batch_end(
        self, batch: Batch, outputs: PretrainingOutput, loss: Tensor, should_step: bool
    ) -> None:
        """Update the teacher after every optimizer step, then log."""
        if should_step:
            self.ema_decay = ema_decay(
                self.optimizer_step,
                self.hparams.ema_start,
                self.hparams.ema_end,
                self.hparams.ema_anneal_steps,
            )
            model = self.unwrapped_model
            model.teacher.update(model.student.encoder, self.ema_decay)
        super().on_fit_batch_end(batch, outputs, loss, should_step)

    def batch_metrics(
        self, outputs: PretrainingOutput, loss: Tensor
    ) -> dict[str, Tensor]:
        """Return total, frame and utterance loss."""
        return {
            "loss": loss.detach(),
            "frame_loss": outputs.frame_loss.detach(),
            "utterance_loss": outputs.utterance_loss.detach(),
        }

    def interval_metrics(
        self, batch: Batch, outputs: PretrainingOutput
    ) -> dict[str, float | Tensor]:
        """Return signs of collapse in the interval's last batch."""
        if not math.isfinite(self.grad_norm):  # a skipped batch tells nothing
            return {"ema_decay": self.ema_decay}
        tokens = outputs.targets.flatten(0, 1)
        metrics: dict[str, float | Tensor] = {
            "prediction_std": feature_std(outputs.predictions.detach().flatten(0, 1)),
            "target_std": feature_std(tokens),
            "between_clip_variance": between_clip_variance(outputs.targets),
            "effective_rank": effective_rank(tokens),
            "ema_decay": self.ema_decay,
        }
        for warning in self.hparams.collapse_monitor.check(
            self.optimizer_step, metrics
        ):
            logger.warning(warning)
        return metrics

    # -- validation, sharded over the ranks --------------------------------------------

    def make_dataloader(
        self,
        dataset: ClipDataset,
        stage: sb.Stage,
        ckpt_prefix: str | None = None,
        *,
        batch_size: int,
        **options: Any,
    ) -> ClipLoader:
        """Return a loader of every world_size-th validation batch."""
        batches = list(BatchSampler(range(len(dataset)), batch_size, False))
        own = batches[self.rank :: self.world_size]
        return ClipLoader(dataset, batch_sampler=own, **options)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start to collect losses."""
        super().on_stage_start(stage, epoch)
        self.valid_losses: list[float] = []
        self.valid_unreadable: dict[str, str] = {}  # ids of clips, and reasons

    def evaluate_batch(self, batch: Batch, stage: sb.Stage) -> Tensor:
        """Collect the loss of a batch."""
        self.valid_unreadable.update(batch.failures)
        loss = super().evaluate_batch(batch, stage)
        self.valid_losses.append(loss.item())
        return loss

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """After validation: kNN score, logs, model folder, checkpoint."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage != sb.Stage.VALID:
            return
        losses = interleave(all_gather_objects(self.valid_losses))
        record = {"valid_loss": fmean(losses)}
        if self.probe_sets is not None:
            record["knn_mAP"] = self.knn_score(*self.probe_sets)
        self.log_unreadable()
        self.last = {**record, "epoch": epoch}
        self.log("epoch", record)
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "step": self.optimizer_step}, valid_stats=record
        )
        # Before the checkpoint: a run killed in between repeats the validation.
        run_on_main(self.write_model)
        if self.hparams.keep_epoch_models:
            run_on_main(self.write_model, args=[f"models/epoch{epoch}"])
        self.save_epoch(self.last)

    def log_unreadable(self) -> None:
        """Log the validation's unreadable clips.

        They do not stop the run: validation only monitors it.
        """
        for unreadable in all_gather_objects(self.valid_unreadable):
            for clip, reason in unreadable.items():
                self.metrics_logger.write_skipped_clips(
                    self.optimizer_step, reason, [clip]
                )
                logger.warning("Validation: substitute for clip %s: %s", clip, reason)

    def knn_score(self, gallery: ClipDataset, query: ClipDataset) -> float:
        """Return the mAP of nearest neighbors in the student's mean patch features."""
        return knn_probe(*self.embed(gallery), *self.embed(query)).value

    @torch.no_grad()
    def embed(self, dataset: ClipDataset) -> tuple[Tensor, Tensor]:
        """Return mean patch features `[M, D]` and labels `[M, C]` of labeled clips.

        Every rank computes a shard and gets the whole.
        """
        shard = range(self.rank, len(dataset), self.world_size)
        loader = DataLoader(
            dataset, batch_size=PROBE_BATCH, sampler=shard, collate_fn=collate
        )
        features, labels = [], []
        for batch in tqdm(loader, "kNN features", leave=False, disable=None):
            self.stop_if_requested()
            self.valid_unreadable.update(batch.failures)
            batch = batch.to(self.device)
            with self.evaluation_ctx:
                spec = self.modules.frontend(batch.wav, batch.lengths)
                patches = self.unwrapped_model.student.encoder(spec).patches
            features += patches.float().mean(dim=1).cpu()
            labels += batch.labels.cpu()
        parts = all_gather_objects((features, labels))
        features, labels = (interleave(part) for part in zip(*parts, strict=True))
        return torch.stack(features), torch.stack(labels)

    def other_clips(self) -> dict[str, Sized | None]:
        """Return the labeled clips of the kNN score."""
        gallery, query = self.probe_sets or (None, None)
        return {"kNN gallery": gallery, "kNN query": query}

    # -- the model ---------------------------------------------------------------------

    def restore_model(self) -> None:
        """Write the model of the last epoch."""
        self.write_model()

    def write_model(self, name: str = "model") -> None:
        """Write student, decoder and teacher as a model folder."""
        model = self.unwrapped_model
        config = {
            "kind": "pretraining",
            "encoder": model.student.encoder.config,
            "decoder": model.student.decoder.config,
            "student": {"mask_noise_std": model.student.mask_noise_std},
            "teacher": model.teacher.config,
            "utterance_weight": model.utterance_weight,
            "frontend": self.modules.frontend.config,
            "step": self.optimizer_step,
        }
        folder = self.folder / name
        texts = self.model_texts(folder, config, self.newest_metrics())
        save_model(folder, config, model, texts)

    def cost(self) -> dict[str, Any]:
        """Return the cost of training, with the operations per clip and its clones."""
        student = self.unwrapped_model.student
        grid = grid_of(
            self.modules.frontend.num_frames, int(student.encoder.config["num_mels"])
        )
        clones = self.hparams.clones
        masks = self.hparams.mask_sampler(1, clones, grid, Generator().manual_seed(0))
        operations = pretraining_operations(
            student.encoder, student.decoder, grid, masks.ids_keep.shape[1], clones
        )
        return {**super().cost(), "gflop_per_clip": gflop(operations)}
