"""The fine-tuning Brain: what classification has in common, whatever the corpus."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn
from torch.utils.data import Dataset

from eat.data.dataset import Batch
from eat.data.manifest import LabelSet
from eat.data.workers import worker_errors
from eat.errors import ExperimentError
from eat.interop.loading import load_classifier, load_frontend, read_checkpoint
from eat.interop.pretrained import load_strictly, read_model, save_model
from eat.training.brain import EATBrain
from eat.training.optim import parameter_groups
from eat.utils.distributed import all_gather_objects


class FinetuneBrain(EATBrain):
    """Train a classifier and judge it every epoch: ``frontend``, ``classifier``.

    A recipe's subclass says how its corpus is augmented and judged:
    ``compute_forward`` returns logits and labels `[B, C]`, ``compute_objectives`` the
    loss of such a pair, :meth:`compute_metrics` the scores of the whole evaluation set.

    Besides the keys of :class:`EATBrain` the YAML file must have: ``weight_decay``,
    ``decay_vectors``, ``layer_decay``, ``train_logger``.

    Attributes
    ----------
    metric
        The score of :meth:`compute_metrics` that the best epoch has the highest of.
    label_set
        The classes, in the order of the classifier's outputs.
    tested
        Scores of :meth:`test`.
    """

    trainable_name = "classifier"
    metric: str
    label_set: LabelSet
    tested: dict[str, float] | None = None
    step_count: Tensor | int = 0

    def compute_metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Scores of all evaluation clips, from logits and labels `[M, C]`."""
        raise NotImplementedError

    def write_details(self, logits: Tensor, labels: Tensor) -> None:
        """Write what `metrics` does not say, of the best epoch, to the run's folder."""

    def parameter_groups(self) -> list[dict]:
        """Groups with layer-wise decayed learning rates."""
        return parameter_groups(
            self.unwrapped_model,
            self.hparams.weight_decay,
            self.hparams.decay_vectors,
            self.hparams.layer_decay,
            depth=len(self.unwrapped_model.encoder.blocks),
        )

    def classify(self, spec: Tensor, stage: sb.Stage) -> Tensor:
        """Logits `[B, C]` of spectrograms `[B, T, F]`."""
        if stage == sb.Stage.TRAIN:
            return self.modules.classifier(spec)
        # Past DDP's wrapper: it waits for the other processes at every batch, and
        # they need not have equally many.
        return self.unwrapped_model(spec)

    def sum_over_step(self, total: Tensor, count: Tensor) -> Tensor:
        """The loss total / count, with the gradient divided by the whole step's count.

        The official trainer divides by the count of all batches of a step, over
        processes and accumulation. It is known at the end of the step only: until
        then the gradient is that of the total.
        """
        self.step_count = self.step_count + count.detach()
        return total + (total / count.clamp(min=1) - total).detach()

    def scale_gradients(self, gradients: list[Tensor]) -> None:
        """Divide by the step's count, where the loss is summed over the step."""
        count, self.step_count = self.step_count, 0
        if not isinstance(count, Tensor):
            return
        if self.world_size > 1:
            torch.distributed.all_reduce(count)
        # SpeechBrain and DDP have divided by the number of batches.
        batches = self.grad_accumulation_factor * self.world_size
        torch._foreach_mul_(gradients, batches / count.clamp(min=1).item())

    # -- evaluation: every process takes its share, all know the whole ---------------

    def make_dataloader(
        self, dataset: Dataset, stage: sb.Stage, *args: Any, **kwargs: Any
    ) -> torch.utils.data.DataLoader:
        """Make a loader; for evaluation, of every world_size-th clip."""
        if stage != sb.Stage.TRAIN:
            kwargs["sampler"] = range(self.rank, len(dataset), self.world_size)
        return super().make_dataloader(dataset, stage, *args, **kwargs)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin to collect logits and labels."""
        super().on_stage_start(stage, epoch)
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def evaluate_batch(self, batch: Batch, stage: sb.Stage) -> Tensor:
        """Collect a batch's logits and labels; returns its loss."""
        with torch.no_grad(), self.evaluation_ctx:
            logits, labels = self.compute_forward(batch, stage)
        logits, labels = logits.float().cpu(), labels.cpu()
        self.outputs.append((logits, labels))
        return self.compute_objectives((logits, labels), batch, stage)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Logits and labels `[M, C]` of all processes."""
        parts = all_gather_objects(self.outputs)
        logits, labels = zip(*chain.from_iterable(parts), strict=True)
        return torch.cat(logits), torch.cat(labels)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Scores, log, model folder of the best, checkpoint."""
        if stage == sb.Stage.TRAIN:
            return
        logits, labels = self.gathered()
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
        # The model first: a run killed in between repeats the epoch and writes both.
        run_on_main(self.keep_best, args=[logits, labels])
        self.save_epoch(self.last, best=self.metric)

    def keep_best(self, logits: Tensor, labels: Tensor) -> None:
        """Write model and details if this epoch is the best so far."""
        best = self.best()
        if best is None or self.last[self.metric] >= best[self.metric]:
            self.write_details(logits, labels)
            self.write_model()

    def best(self) -> dict[str, float] | None:
        """Figures of the best checkpoint so far."""
        found = self.checkpointer.find_checkpoint(max_key=self.metric)
        keys = ("loss", self.metric, "epoch")
        return found and {key: found.meta[key] for key in keys}

    # -- the model ---------------------------------------------------------------------

    def write_model(self) -> None:
        """Write the classifier as a model folder."""
        config = {
            "kind": "classifier",
            **self.unwrapped_model.config,
            "frontend": self.modules.frontend.config,
            "labels": self.label_set.names,
            "step": self.optimizer_step,
        }
        save_model(self.model_folder, config, self.unwrapped_model)

    @property
    def model_folder(self) -> Path:
        """Where the best epoch's classifier is."""
        return Path(self.hparams.output_folder) / "model"

    def test(self, dataset: Dataset) -> dict[str, float]:
        """Judge the best epoch (with ``--test_only`` the network as it is)."""
        options = {**self.loader_options, "batch_size": self.hparams.batch_size}
        with self.lost_connections(), worker_errors(dataset):
            self.evaluate(dataset, test_loader_kwargs=options)
        return self.tested

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Take the best epoch's weights, without going back to its checkpoint."""
        if not self.test_only:
            _, state = read_model(self.model_folder)
            load_strictly(self.unwrapped_model, state, self.model_folder)
        elif self.model_folder.exists():
            raise ExperimentError(
                f"{self.hparams.output_folder}: holds a training, whose results the "
                "test would replace (give another --output_folder)"
            )


def require_classes(labels: LabelSet, hparams: dict[str, Any]) -> LabelSet:
    """The corpus's classes, if they are as many as the network's outputs.

    Raises
    ------
    ExperimentError
        If they are not, or the settings are those of a pre-training.
    """
    if "num_classes" not in hparams:
        raise ExperimentError("--test_only: give a fine-tuning YAML file with it")
    if len(labels) != hparams["num_classes"]:
        raise ExperimentError(
            f"num_classes {hparams['num_classes']}: {hparams['data_folder']} has "
            f"{len(labels)} (add --num_classes {len(labels)})"
        )
    return labels


def finetuned_modules(path: str, labels: LabelSet) -> dict[str, nn.Module]:
    """``frontend`` and ``classifier`` of a fine-tuned checkpoint, ours or official.

    Raises
    ------
    CheckpointError
        If it is missing, damaged or not a classifier.
    ExperimentError
        If it was trained for other classes.
    """
    classifier, (config, _) = load_classifier(path), read_checkpoint(path)
    names = config.get("labels")  # official files do not tell them
    if config["num_classes"] != len(labels):
        raise ExperimentError(
            f"{path}: tells {config['num_classes']} classes apart, the corpus has "
            f"{len(labels)} (give a checkpoint that was fine-tuned on this corpus)"
        )
    if names and list(names) != list(labels.names):
        pairs = zip(names, labels.names, strict=True)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        raise ExperimentError(
            f"{path}: has a class '{theirs}' where the corpus has '{ours}' "
            "(give a checkpoint that was fine-tuned on this corpus)"
        )
    return {"frontend": load_frontend(path), "classifier": classifier}
