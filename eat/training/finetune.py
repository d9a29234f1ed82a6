"""The fine-tuning Brain: evaluation, the best epoch's model, tests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sized
from itertools import chain
from pathlib import Path
from typing import Any, cast

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn

from eat.data.dataset import Batch, ClipDataset
from eat.data.manifest import LabelSet
from eat.data.workers import ClipLoader, worker_errors
from eat.errors import ExperimentError
from eat.evaluation.per_class import Evaluation
from eat.interop.file_kinds import is_folder
from eat.interop.labels import LABELS, labels_json
from eat.interop.loading import Checkpoint
from eat.interop.pretrained import load_strictly, read_model, save_model
from eat.model.classifier import EATClassifier
from eat.training.brain import EATBrain
from eat.training.checkpoint_files import own_metrics
from eat.training.optim import parameter_groups
from eat.training.train_state import TrainState
from eat.utils.distributed import all_gather_objects, connection_errors

logger = logging.getLogger(__name__)


class FinetuneBrain(EATBrain):
    """Train ``modules.classifier`` and evaluate it after every epoch.

    A recipe's subclass implements ``compute_forward``, which returns logits and labels
    `[B, C]`, and ``compute_objectives``, which returns the loss of such a pair, and
    sets :attr:`evaluation`.

    Besides the keys of :class:`EATBrain` the YAML file must have: ``weight_decay``,
    ``decay_vectors``, ``layer_decay``, ``train_logger``.

    Attributes
    ----------
    evaluation
        How the epochs are compared: by mean average precision or by accuracy.
    label_set
        Classes, in the order of the classifier's outputs.
    test_set
        Clips that :meth:`test` will get once training is over, if it will be called.
    tested
        Metrics of :meth:`test`.
    """

    trainable_name = "classifier"
    evaluation: Evaluation
    label_set: LabelSet
    test_set: ClipDataset | None = None
    tested: dict[str, float]
    step_count: Tensor | int = 0

    @property
    def metric(self) -> str:
        """Name of the metric whose highest value marks the best epoch."""
        return self.evaluation.metric

    @property
    def unwrapped_model(self) -> EATClassifier:
        """The classifier without its DDP or compile wrapper."""
        return cast(EATClassifier, super().unwrapped_model)

    def compute_metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return metrics of the evaluation clips, from logits and labels `[M, C]`."""
        return self.evaluation.metrics(logits, labels)

    def write_details(self, logits: Tensor, labels: Tensor) -> None:
        """Write a per-class report of the best epoch to the run's folder."""
        names = self.label_set.names
        self.evaluation.write_report(self.folder, names, logits, labels)

    def parameter_groups(self) -> list[dict]:
        """Return groups with layer-wise decayed learning rates."""
        return parameter_groups(
            self.unwrapped_model,
            self.hparams.weight_decay,
            self.hparams.decay_vectors,
            self.hparams.layer_decay,
            depth=len(self.unwrapped_model.encoder.blocks),
        )

    def divide_over_step(self, total: Tensor, count: Tensor, stage: sb.Stage) -> Tensor:
        """Return the loss ``total / count``, whose gradient has the whole step's count.

        The official trainer divides by the count of all batches of an optimizer step,
        over processes and accumulation. It is known at the end of the step only: until
        then the gradient is that of `total`.
        """
        loss = total / count.clamp(min=1)
        if stage != sb.Stage.TRAIN:
            return loss
        self.step_count = self.step_count + count.detach()
        return total + (loss - total).detach()

    def gradient_divisor(self) -> Tensor | float:
        """Return the step's count per batch, if the loss is divided over the step."""
        count, self.step_count = self.step_count, 0
        if not isinstance(count, Tensor):
            return 1.0
        if self.world_size > 1:
            torch.distributed.all_reduce(count)
        # SpeechBrain and DDP have divided by the number of batches.
        batches = self.grad_accumulation_factor * self.world_size
        return count.clamp(min=1) / batches

    def valid_frames(self, batch: Batch, mixed: bool = False) -> Tensor | None:
        """Return the clips' frames before their padding `[B]`, if that is masked.

        Of a batch that was mixed, those of the longer one of two clips.
        """
        if not self.unwrapped_model.mask_padding:
            return None
        frames = self.modules.frontend.valid_frames(batch.lengths)
        return torch.maximum(frames, frames.flip(0)) if mixed else frames

    # -- evaluation, sharded over the ranks --------------------------------------------

    def make_dataloader(
        self,
        dataset: ClipDataset,
        stage: sb.Stage,
        ckpt_prefix: str | None = None,
        **options: Any,
    ) -> ClipLoader:
        """Return a loader of every world_size-th evaluation clip."""
        clips = range(self.rank, len(dataset), self.world_size)
        return ClipLoader(dataset, sampler=clips, **options)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start to collect logits and labels."""
        super().on_stage_start(stage, epoch)
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def evaluate_batch(self, batch: Batch, stage: sb.Stage) -> Tensor:
        """Collect the logits and labels of a batch, and return its loss."""
        with torch.no_grad(), self.evaluation_ctx:
            logits, labels = self.compute_forward(batch, stage)
        logits, labels = logits.float().cpu(), labels.cpu()
        self.outputs.append((logits, labels))
        self.stop_if_requested()
        return self.compute_objectives((logits, labels), batch, stage)

    def gathered_outputs(self) -> tuple[Tensor, Tensor]:
        """Return logits and labels `[M, C]` of all ranks."""
        parts = all_gather_objects(self.outputs)
        logits, labels = zip(*chain.from_iterable(parts), strict=True)
        return torch.cat(logits), torch.cat(labels)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """After evaluation: metrics, logs, the best epoch's model, checkpoint."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.TRAIN:
            return
        logits, labels = self.gathered_outputs()
        loss = self.compute_objectives((logits, labels), None, stage)
        record = {"loss": loss.item(), **self.compute_metrics(logits, labels)}
        if stage == sb.Stage.TEST:
            self.tested = record
            self.log("test", {f"test_{key}": value for key, value in record.items()})
            run_on_main(self.write_details, args=[logits, labels])
            return
        self.last = {**record, "epoch": epoch}
        self.log("epoch", {f"valid_{key}": value for key, value in record.items()})
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "step": self.optimizer_step}, valid_stats=record
        )
        # Before the checkpoint: a run killed in between repeats the validation.
        run_on_main(self.keep_best, args=[record[self.metric], logits, labels])
        self.save_epoch(self.last, best=self.metric)

    def keep_best(self, score: float, logits: Tensor, labels: Tensor) -> None:
        """Write model and details if no earlier epoch has a higher `score`."""
        best = self.best()
        if best is None or score >= best[self.metric]:
            self.write_details(logits, labels)
            self.write_model(self.newest_metrics())

    def best(self) -> dict[str, float] | None:
        """Return the metrics of the best checkpoint so far."""
        found = self.checkpointer.find_checkpoint(max_key=self.metric)
        keys = ("loss", self.metric, "epoch")
        return found and {key: found.meta[key] for key in keys}

    def other_clips(self) -> dict[str, Sized | None]:
        """Return the clips of the final evaluation."""
        return {"evaluation": self.test_set}

    # -- the model ---------------------------------------------------------------------

    @property
    def model_folder(self) -> Path:
        """Folder of the best epoch's classifier."""
        return self.folder / "model"

    def restore_model(self) -> None:
        """Write the best epoch's model from its checkpoint."""
        best = self.checkpointer.find_checkpoint(max_key=self.metric)
        if best is None:
            return
        self.checkpointer.verify(best)
        weights = torch.load(
            best.paramfiles[self.trainable_name],
            map_location=self.device,
            weights_only=True,
        )
        load_strictly(self.unwrapped_model, weights, best.path)
        step = TrainState.read(best.paramfiles["brain"]).optimizer_step
        self.write_model(own_metrics(best.meta), step)

    def write_model(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write the classifier of an epoch as a model folder.

        `metrics` are that epoch's; `step` is the current one if None.
        """
        config = {
            "kind": "classifier",
            **self.unwrapped_model.config,
            "frontend": self.modules.frontend.config,
            "labels": self.label_set.names,
            "multi_label": self.evaluation.multi_label,
            "step": self.optimizer_step if step is None else step,
        }
        texts = self.model_texts(self.model_folder, config, metrics)
        texts[LABELS] = labels_json(self.label_set.names, self.label_set.ids)
        save_model(self.model_folder, config, self.unwrapped_model, texts)

    def test(self, dataset: ClipDataset) -> dict[str, float]:
        """Evaluate the best epoch's model; with ``--test_only``, the given one."""
        options = {**self.loader_options(), "batch_size": self.hparams.batch_size}
        with connection_errors(self.stop_if_saved), worker_errors(dataset):
            self.evaluate(dataset, test_loader_kwargs=options)
        return self.tested

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Load the best epoch's model, rather than the checkpoint of that epoch."""
        if not self.test_only:
            _, state = read_model(self.model_folder)
            load_strictly(self.unwrapped_model, state, self.model_folder)
        elif self.model_folder.exists():
            raise ExperimentError(
                f"{self.hparams.output_folder}: contains a training run; testing here "
                "would overwrite its results (give another --output_folder)"
            )


def require_classes(labels: LabelSet, hparams: dict[str, Any]) -> LabelSet:
    """Return the corpus's classes, if the classifier has as many outputs.

    Raises
    ------
    ExperimentError
        If it has not, or the settings are those of a pre-training.
    """
    if "num_classes" not in hparams:
        raise ExperimentError("--test_only: needs a fine-tuning YAML file")
    if len(labels) != hparams["num_classes"]:
        raise ExperimentError(
            f"num_classes {hparams['num_classes']}: {hparams['data_folder']} has "
            f"{len(labels)} classes (add --num_classes {len(labels)})"
        )
    return labels


def finetuned_modules(path: str, labels: LabelSet) -> dict[str, nn.Module]:
    """Return ``frontend`` and ``classifier`` of a fine-tuned checkpoint.

    Parameters
    ----------
    path
        A model folder or an official checkpoint.
    labels
        Classes of the corpus.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, corrupt or not a classifier.
    ExperimentError
        If it was trained on other classes.
    """
    checkpoint = Checkpoint.read(path)
    classifier = checkpoint.classifier()
    names = checkpoint.config.get("labels")  # ids in some official checkpoints
    num_classes = checkpoint.config["num_classes"]
    if num_classes != len(labels):
        raise ExperimentError(
            f"{path}: was trained on {num_classes} classes, the corpus has "
            f"{len(labels)} (give a checkpoint that was fine-tuned on this corpus)"
        )
    if names and tuple(names) not in (tuple(labels.names), tuple(labels.ids)):
        pairs = zip(names, labels.names, strict=True)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        what = f"{path}: has class '{theirs}' where the corpus has '{ours}'"
        # An official file may spell all of them otherwise.
        if is_folder(path) or {*names} & {*labels.names, *labels.ids}:
            raise ExperimentError(
                f"{what} (give a checkpoint that was fine-tuned on this corpus)"
            )
        logger.warning("%s; the classes are matched by their order", what)
    return {"frontend": checkpoint.frontend(), "classifier": classifier}
