"""The pre-training Brain: EAT's self-supervised step on any corpus."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, Dataset
from tqdm import tqdm

from eat.data.dataset import Batch, ClipDataset, collate
from eat.evaluation.collapse import between_clip_variance, effective_rank, feature_std
from eat.evaluation.probing import knn_probe
from eat.interop.pretrained import save_model
from eat.model.patching import grid_of
from eat.pretraining.model import PretrainingOutput
from eat.pretraining.teacher import ema_decay
from eat.training.brain import EATBrain
from eat.training.cost import gflop
from eat.training.optim import parameter_groups
from eat.utils.distributed import all_gather_objects, interleave
from eat.utils.random import clip_generators

logger = logging.getLogger(__name__)


class PretrainBrain(EATBrain):
    """Pre-train an EAT: ``modules`` holds ``frontend`` and ``model``.

    Besides the keys of :class:`EATBrain` the YAML file must have: ``mask_sampler``,
    ``clones``, ``weight_decay``, ``decay_vectors``, ``ema_start``, ``ema_end``,
    ``ema_anneal_steps``, ``collapse_monitor``, ``keep_epoch_models``,
    ``train_logger``.

    Attributes
    ----------
    probe_sets
        Labeled clips (gallery, query) for the kNN score of every epoch; None
        where there are no labels.
    """

    trainable_name = "model"
    probe_sets: tuple[ClipDataset, ClipDataset] | None = None

    def on_fit_start(self) -> None:
        """Keep DDP from broadcasting what is the same in all processes.

        The teacher and all buffers follow from the student's weights.
        """
        model = self.unwrapped_model
        constant = {f"teacher.{name}" for name in model.teacher.state_dict()}
        constant |= {name for name, _ in model.named_buffers()}
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            model, sorted(constant)
        )
        super().on_fit_start()

    def parameter_groups(self) -> list[dict]:
        """Return the groups of the student; the teacher is not trained."""
        return parameter_groups(
            self.unwrapped_model.student,
            self.hparams.weight_decay,
            self.hparams.decay_vectors,
        )

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> PretrainingOutput:
        """Run student and teacher on a batch."""
        batch = batch.to(self.device, non_blocking=True)
        training = stage == sb.Stage.TRAIN
        # Validation uses the same masks in every epoch, so that its loss is comparable.
        epoch = self.epoch if training else 0
        number = self.batch_number if training else self.batch_number + 1
        # Validation bypasses DDP, which synchronizes at every batch: processes may
        # have different numbers of batches.
        model = self.modules.model if training else self.unwrapped_model
        first, clips = number * self.hparams.batch_size, len(batch.ids)
        generators = clip_generators(
            self.hparams.seed, epoch, first, clips, self.device
        )
        spec = self.modules.frontend(batch.wav, batch.lengths)
        masks = self.hparams.mask_sampler(
            len(spec), self.hparams.clones, grid_of(*spec.shape[1:]), generators
        )
        return model(spec, masks, generator=generators, update_center=training)

    def compute_objectives(
        self, predictions: PretrainingOutput, batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the loss that the model has computed."""
        self.losses = predictions
        return predictions.loss

    def on_fit_batch_end(
        self, batch: Batch, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Move the teacher after every optimizer step, then log."""
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

    def batch_metrics(self, loss: Tensor) -> dict[str, Tensor]:
        """Total, frame and utterance loss."""
        return {
            "loss": loss.detach(),
            "frame_loss": self.losses.frame_loss.detach(),
            "utterance_loss": self.losses.utterance_loss.detach(),
        }

    def interval_metrics(self, batch: Batch, outputs: Any) -> dict[str, float]:
        """Signs of collapse, of the interval's last batch."""
        if not math.isfinite(self.grad_norm):  # a batch left out tells nothing
            return {"ema_decay": self.ema_decay}
        tokens = outputs.targets.flatten(0, 1)
        metrics = {
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

    # -- validation: every process takes its share, all know the whole -----------------

    def make_dataloader(
        self, dataset: Dataset, stage: sb.Stage, *args: Any, **kwargs: Any
    ) -> DataLoader:
        """Make a loader of every world_size-th batch."""
        batches = BatchSampler(range(len(dataset)), kwargs.pop("batch_size"), False)
        kwargs["batch_sampler"] = list(batches)[self.rank :: self.world_size]
        return super().make_dataloader(dataset, stage, *args, **kwargs)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin to collect losses."""
        super().on_stage_start(stage, epoch)
        self.valid_losses: list[float] = []
        self.replaced: dict[str, str] = {}  # clips that are no sound, and why

    def evaluate_batch(self, batch: Batch, stage: sb.Stage) -> Tensor:
        """Collect a batch's loss."""
        self.replaced.update(batch.failures)
        loss = super().evaluate_batch(batch, stage)
        self.valid_losses.append(loss.item())
        return loss

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """After validation: kNN score, log, checkpoint, model folder."""
        if stage != sb.Stage.VALID:
            return
        losses = interleave(all_gather_objects(self.valid_losses))
        record = {"valid_loss": fmean(losses)}
        if self.probe_sets is not None:
            record["knn_mAP"] = self.knn_score()
        self.note_replaced()
        self.last = {**record, "epoch": epoch}
        self.log("epoch", record)
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "step": self.optimizer_step}, valid_stats=record
        )
        # The model first: a run killed in between repeats the epoch and writes both.
        run_on_main(self.write_model)
        if self.hparams.keep_epoch_models:
            run_on_main(self.write_model, args=[f"models/epoch{epoch}"])
        self.save_epoch(self.last)

    def note_replaced(self) -> None:
        """Write down clips of the validation that another stood in for.

        These scores only watch a training; a damaged clip need not end it.
        """
        for replaced in all_gather_objects(self.replaced):
            for clip, reason in replaced.items():
                self.metrics_logger.write_skipped_clips(
                    self.optimizer_step, reason, [clip]
                )
                logger.warning("Validation: another clip for %s: %s", clip, reason)

    def knn_score(self) -> float:
        """MAP of nearest neighbors in the student's mean patch features."""
        gallery, query = (self.embed(dataset) for dataset in self.probe_sets)
        return knn_probe(*gallery, *query)

    @torch.no_grad()
    def embed(self, dataset: ClipDataset) -> tuple[Tensor, Tensor]:
        """Mean patch features `[M, D]` and labels `[M, C]` of labeled clips.

        Every process computes its share, all know the whole.
        """
        share = range(self.rank, len(dataset), self.world_size)
        loader = DataLoader(dataset, batch_size=32, sampler=share, collate_fn=collate)
        features, labels = [], []
        for batch in tqdm(loader, "kNN features", leave=False, disable=None):
            self.stop_if_requested()
            self.replaced.update(batch.failures)
            batch = batch.to(self.device)
            with self.evaluation_ctx:
                spec = self.modules.frontend(batch.wav, batch.lengths)
                patches = self.unwrapped_model.student.encoder(spec).patches
            features += patches.float().mean(dim=1).cpu()
            labels += batch.target.cpu()
        parts = all_gather_objects((features, labels))
        features, labels = (interleave(part) for part in zip(*parts, strict=True))
        return torch.stack(features), torch.stack(labels)

    def write_model(self, name: str = "model") -> None:
        """Write the student, its decoder and the teacher as a model folder."""
        model = self.unwrapped_model
        student, teacher = model.student, model.teacher
        config = {
            "kind": "pretraining",
            "encoder": student.encoder.config,
            "decoder": student.decoder.config,
            "student": {"mask_noise_std": student.mask_noise_std},
            "teacher": teacher.config,
            "utterance_weight": model.utterance_weight,
            "frontend": self.modules.frontend.config,
            "step": self.optimizer_step,
        }
        save_model(Path(self.hparams.output_folder) / name, config, model)

    def cost(self) -> dict[str, Any]:
        """What training costs, with the operations of one clip and its clones."""
        frames = self.modules.frontend.num_frames
        model = self.unwrapped_model
        mels = model.student.encoder.config["num_mels"]
        spec = torch.zeros(1, frames, mels, device=self.device)
        generator = torch.Generator(self.device).manual_seed(0)
        masks = self.hparams.mask_sampler(
            1, self.hparams.clones, grid_of(frames, mels), generator
        )

        student = gflop(lambda: model.student(spec, masks, generator=generator))
        teacher = gflop(lambda: model.teacher(spec, update_center=False))
        # The student's backward pass takes twice its forward pass.
        counted = 3 * student + teacher
        return {**super().cost(), "gflop_per_clip": counted}
