"""Pre-train or fine-tune EAT on AudioSet.

    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN
    python train.py hparams/finetune_as20k.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL

The same command on an existing RUN resumes it. ``--test_only`` with a fine-tuned MODEL
judges it on the evaluation clips.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch.nn.functional as F
from audioset_prepare import prepare_audioset
from folder_prepare import prepare_folder
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import mixup, roll_and_gain, spec_augment
from eat.data.dataset import Batch, ClipDataset, audio_dataset, hold_out
from eat.data.manifest import LabelSet, read_labels
from eat.data.samplers import WeightedSampler, balancing_weights
from eat.errors import ExperimentError, exit_on_error
from eat.evaluation.metrics import average_precision
from eat.evaluation.per_class import write_class_ap
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.training.brain import EATBrain
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class AudioSetPretrainBrain(PretrainBrain):
    """EAT pre-training; nothing about it depends on AudioSet."""


class AudioSetFinetuneBrain(FinetuneBrain):
    """Multi-label fine-tuning, judged by mean average precision."""

    metric = "mAP"

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
        return self.classify(spec, stage), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Binary cross-entropy summed and divided by the positives, as official."""
        logits, labels = predictions
        total = F.binary_cross_entropy_with_logits(
            logits.float(), labels, reduction="sum"
        )
        positives = labels.sum()
        if stage == sb.Stage.TRAIN:
            return self.sum_over_step(total, positives)
        return total / positives.clamp(min=1)

    def compute_metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Mean over the classes that occur."""
        per_class = average_precision(logits.sigmoid(), labels)
        return {"mAP": per_class.nanmean().item()}

    def write_details(self, logits: Tensor, labels: Tensor) -> None:
        """Write the average precision of every class."""
        per_class = average_precision(logits.sigmoid(), labels)
        path = Path(self.hparams.output_folder) / "class_ap.txt"
        write_class_ap(path, self.label_set.names, per_class.tolist())


def prepare_data(hparams: dict) -> LabelSet | None:
    """Make the manifests if need be; the classes, if the clips have labels."""
    folders = [hparams["data_folder"], hparams["manifest_folder"]]
    if hparams["corpus"] == "audioset":
        run_on_main(prepare_audioset, args=folders)
    elif hparams["corpus"] == "folder":
        run_on_main(prepare_folder, args=[*folders, hparams["max_seconds"]])
    elif hparams["corpus"] != "shards":  # those have their manifests beside them
        raise ExperimentError(f"corpus {hparams['corpus']}: audioset, folder or shards")
    labels = Path(hparams["manifest_folder"]) / "labels.csv"
    return read_labels(labels) if labels.is_file() else None


def labels_of(hparams: dict) -> LabelSet:
    """The classes, whose number the network must have."""
    labels = prepare_data(hparams)
    if labels is None:
        raise ExperimentError(
            f"{hparams['data_folder']}: its clips have no labels to fine-tune on "
            "(put a labels.csv there, see the recipe's README)"
        )
    return require_classes(labels, hparams)


def dataset(
    hparams: dict, manifest: str, labels: LabelSet | None, replace: bool = False
) -> ClipDataset:
    """Dataset of one manifest; with `replace`, others stand in for damaged clips."""
    path = Path(hparams["manifest_folder"]) / f"{manifest}.csv"
    return audio_dataset(
        path, hparams["data_folder"], labels, hparams["max_seconds"], replace=replace
    )


def weighted_sampler(
    brain: EATBrain, train: ClipDataset, draws: int
) -> WeightedSampler:
    """Epochs in which rare classes are as frequent as common ones."""
    weights = balancing_weights(map(train.labels, range(len(train))))
    return WeightedSampler(weights, draws, brain.clips_per_epoch, brain.hparams.seed)


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train; labels serve the kNN score only, where there are labeled clips."""
    labels = prepare_data(hparams)
    train = dataset(hparams, hparams["train_manifest"], None, replace=True)
    probe_sets = None
    if (Path(hparams["manifest_folder"]) / "balanced_train.csv").is_file():
        labeled = dataset(hparams, "balanced_train", labels, replace=True)
        probe_sets = hold_out(labeled, hparams["held_out"])
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
    brain.fit_steps(train, valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch."""
    labels = labels_of(hparams)
    train = dataset(hparams, hparams["train_manifest"], labels, replace=True)
    test_set = valid = dataset(hparams, "eval", labels)
    if hparams["held_out"]:
        train, valid = hold_out(train, hparams["held_out"])
        valid = valid.without_substitutes()
    classifier = hparams["modules"]["classifier"]
    if hparams["pretrained"] != "none":
        initialize_encoder(classifier.encoder, hparams["pretrained"])
    brain = AudioSetFinetuneBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.label_set = labels
    sampler = None
    if hparams["weighted_draws"]:
        sampler = weighted_sampler(brain, train, hparams["weighted_draws"])
    brain.fit_steps(train, valid, sampler)
    results = {"best": brain.best()}
    if hparams["held_out"] and not brain.was_complete():
        results["test"] = brain.test(test_set)
    run_on_main(brain.write_results, kwargs=results)


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Judge a fine-tuned checkpoint, ours or official, on the evaluation clips."""
    labels = labels_of(hparams)
    brain = AudioSetFinetuneBrain(
        modules=finetuned_modules(hparams["pretrained"], labels),
        hparams=hparams,
        run_opts=run_opts,
    )
    brain.label_set = labels
    scores = brain.test(dataset(hparams, "eval", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        task = "test" if RUN_OPTS["test_only"] else HPARAMS["task"]
        run = {"pretrain": pretrain, "finetune": finetune, "test": test}[task]
        run(HPARAMS, RUN_OPTS)
        shutdown()
