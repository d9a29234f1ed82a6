"""Pre-train or fine-tune EAT on AudioSet.

    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN
    python train.py hparams/finetune_as20k.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL

The same command on an existing RUN resumes it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
import torch.nn.functional as F
from audioset_prepare import prepare_audioset
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import mixup, roll_and_gain, spec_augment
from eat.data.dataset import Batch, audio_dataset, collate
from eat.data.manifest import LabelSet, read_labels
from eat.data.sampling import EpochSampler
from eat.evaluation.metrics import average_precision
from eat.interop.loading import initialise_encoder
from eat.interop.weights import save_model
from eat.training.brain import EATBrain
from eat.training.experiment import (
    ExperimentError,
    one_line_errors,
    start_experiment,
)
from eat.training.optim import parameter_groups
from eat.training.pretrain import PretrainBrain


class AudioSetPretrainBrain(PretrainBrain):
    """EAT pre-training; nothing about it depends on AudioSet."""


class AudioSetFinetuneBrain(EATBrain):
    """Multi-label fine-tuning, judged by mean average precision."""

    trained = "classifier"

    def parameter_groups(self) -> list[dict]:
        """Groups with layer-wise decayed learning rates."""
        return parameter_groups(
            self.bare,
            self.hparams.weight_decay,
            self.hparams.decay_vectors,
            self.hparams.layer_decay,
            depth=len(self.bare.encoder.blocks),
        )

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Logits and (mixed) labels, `[B, C]` each; augments while training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, labels = batch.wav, batch.target
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)
        if training:
            spec, labels = mixup(
                spec,
                labels,
                self.hparams.mixup_alpha,
                self.hparams.mixup_probability,
                self.generator,
            )
            spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        return self.modules.classifier(spec), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Binary cross-entropy summed and divided by the positives, as official."""
        logits, labels = predictions
        if stage != sb.Stage.TRAIN:
            self.scores.append(logits.float().sigmoid().cpu())
            self.labels.append(labels.cpu())
        total = F.binary_cross_entropy_with_logits(
            logits.float(), labels, reduction="sum"
        )
        return total / labels.sum().clamp(min=1)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin to collect scores."""
        super().on_stage_start(stage, epoch)
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Mean average precision, log, checkpoint of the best, model folder."""
        if stage == sb.Stage.TRAIN:
            return
        per_class = average_precision(torch.cat(self.scores), torch.cat(self.labels))
        record = {"loss": float(stage_loss), "mAP": per_class.nanmean().item()}
        self.last = {**record, "epoch": epoch}
        self.log("epoch", {f"valid_{key}": value for key, value in record.items()})
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "step": self.optimizer_step}, valid_stats=record
        )
        # The model first: a run killed in between repeats the epoch and writes both.
        run_on_main(self.keep_best, kwargs={"per_class": per_class})
        self.save_epoch(self.last, max_keys=["mAP"])

    def keep_best(self, per_class: Tensor) -> None:
        """Write model and class scores if this epoch is the best so far."""
        best = self.best()
        if best is None or self.last["mAP"] > best["mAP"]:
            self.write_class_ap(per_class)
            self.write_model()

    def best(self) -> dict[str, float] | None:
        """Figures of the best checkpoint so far."""
        found = self.checkpointer.find_checkpoint(max_key="mAP")
        return found and {key: found.meta[key] for key in ("loss", "mAP", "epoch")}

    def write_class_ap(self, per_class: Tensor) -> None:
        """Write the average precision of every class, best first."""
        rows = zip(self.label_set.names, per_class.tolist(), strict=True)
        lines = [f"{ap:.4f}\t{name}" for name, ap in sorted(rows, key=_by_ap)]
        path = Path(self.hparams.output_folder) / "class_ap.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write_model(self) -> None:
        """Write the classifier as a model folder."""
        config = {
            "kind": "classifier",
            **self.bare.config,
            "frontend": self.modules.frontend.config,
            "labels": self.label_set.names,
            "step": self.optimizer_step,
        }
        save_model(Path(self.hparams.output_folder) / "model", config, self.bare)


def _by_ap(row: tuple[str, float]) -> float:
    return -row[1] if row[1] == row[1] else 1.0  # classes without positives last


def prepare_data(hparams: dict) -> LabelSet:
    """Make the manifests if need be, and read the list of labels."""
    run_on_main(
        prepare_audioset,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["manifest_folder"],
        },
    )
    return read_labels(Path(hparams["manifest_folder"]) / "labels.csv")


def dataset(
    hparams: dict, manifest: str, labels: LabelSet | None
) -> DynamicItemDataset:
    """Dataset of one manifest."""
    path = Path(hparams["manifest_folder"]) / f"{manifest}.csv"
    return audio_dataset(path, hparams["data_folder"], labels, hparams["max_seconds"])


def hold_out(
    data: DynamicItemDataset, share: float
) -> tuple[DynamicItemDataset, DynamicItemDataset]:
    """Split into (rest, held out): clips at even distances in the manifest."""
    if not 0 < share <= 0.5:
        raise ExperimentError(f"held_out {share}: must lie above 0, up to 0.5")
    held = set(data.data_ids[:: round(1 / share)])
    return (
        data.filtered_sorted(key_test={"id": lambda i: i not in held}),
        data.filtered_sorted(key_test={"id": lambda i: i in held}),
    )


def fit(
    brain: EATBrain,
    hparams: dict,
    train: DynamicItemDataset,
    valid: DynamicItemDataset,
) -> None:
    """Train over epochs of a fixed number of optimiser steps."""
    clips_an_epoch = hparams["steps_per_epoch"] * brain.clips_a_step
    sampler = EpochSampler(len(train), clips_an_epoch, hparams["seed"])
    loader = {
        "batch_size": hparams["batch_size"],
        "num_workers": hparams["num_workers"],
        "collate_fn": collate,
        "pin_memory": "cuda" in brain.device,
    }
    brain.fit(
        hparams["epoch_counter"],
        train,
        valid,
        train_loader_kwargs={**loader, "sampler": sampler, "drop_last": True},
        valid_loader_kwargs=loader,
    )


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train; labels serve the kNN score only, where there are labelled clips."""
    labels = prepare_data(hparams)
    train = dataset(hparams, hparams["train_manifest"], None)
    probe_sets = None
    if (Path(hparams["manifest_folder"]) / "balanced_train.csv").is_file():
        labelled = dataset(hparams, "balanced_train", labels)
        probe_sets = hold_out(labelled, hparams["held_out"])
        valid = probe_sets[1]
    else:
        train, valid = hold_out(train, min(hparams["held_out"], 2000 / len(train)))
    brain = AudioSetPretrainBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.probe_sets = probe_sets
    fit(brain, hparams, train, valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch."""
    labels = prepare_data(hparams)
    if len(labels) != hparams["num_classes"]:
        raise ExperimentError(
            f"num_classes {hparams['num_classes']}: {hparams['data_folder']} lists "
            f"{len(labels)} (add --num_classes {len(labels)})"
        )
    train = dataset(hparams, hparams["train_manifest"], labels)
    if hparams["held_out"]:
        train, valid = hold_out(train, hparams["held_out"])
    else:
        valid = dataset(hparams, "eval", labels)
    classifier = hparams["modules"]["classifier"]
    if hparams["pretrained"] != "none":
        initialise_encoder(classifier.encoder, hparams["pretrained"])
    brain = AudioSetFinetuneBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.label_set = labels
    fit(brain, hparams, train, valid)
    run_on_main(brain.write_results, kwargs={"best": brain.best()})


if __name__ == "__main__":
    with one_line_errors():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        {"pretrain": pretrain, "finetune": finetune}[HPARAMS["task"]](HPARAMS, RUN_OPTS)
