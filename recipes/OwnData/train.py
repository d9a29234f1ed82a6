"""Pre-train or fine-tune EAT on a folder of recordings.

    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN
    python train.py hparams/finetune.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL --num_classes C

Pre-training needs no labels; for fine-tuning they are in a table or the names of the
folders (see ``own_data_prepare.py``). Re-run the same command to resume an interrupted
run. With ``--test_only``, a fine-tuned MODEL is evaluated on the evaluation clips.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch.nn.functional as F
from own_data_manifests import TRAINED, find_manifest, find_several_labels
from own_data_prepare import prepare_own_data
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import mixup, roll_and_gain, spec_augment
from eat.data.dataset import Batch, ClipDataset, audio_dataset, hold_out
from eat.data.manifest import LabelSet, read_labels
from eat.errors import ExperimentError, exit_on_error
from eat.evaluation.per_class import (
    Evaluation,
    MultiLabelEvaluation,
    SingleLabelEvaluation,
)
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.model.patching import grid_of
from eat.pretraining.model import PretrainingOutput
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown

logger = logging.getLogger(__name__)

MAX_HELD_OUT = 2000  # clips to validate a pre-training without labels on


class OwnDataPretrainBrain(PretrainBrain):
    """Self-supervised pre-training on recordings without labels."""

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> PretrainingOutput:
        """Mask K clones of each of the B clips and run student and teacher."""
        batch = batch.to(self.device, non_blocking=True)
        spec = self.modules.frontend(batch.wav, batch.lengths)  # [B, T, F]
        sampler, clones = self.hparams.mask_sampler, self.hparams.clones
        generators = self.clip_generators(batch, stage)
        masks = sampler(len(spec), clones, grid_of(*spec.shape[1:]), generators)
        noise = self.draw_noise(masks, generators)
        model, training = self.model_for(stage), stage == sb.Stage.TRAIN
        return model(spec, masks, noise, update_center=training)

    def compute_objectives(
        self, predictions: PretrainingOutput, batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the frame loss plus the weighted utterance loss."""
        return predictions.loss


class OwnDataFinetuneBrain(FinetuneBrain):
    """Classification with one or any number of labels per recording."""

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Return logits and labels `[B, C]`; training clips are augmented and mixed."""
        batch = batch.to(self.device, non_blocking=True)
        if stage != sb.Stage.TRAIN:
            spec = self.modules.frontend(batch.wav, batch.lengths)  # [B, T, F]
            return self.unwrapped_model(spec, self.valid_frames(batch)), batch.labels
        wav = roll_and_gain(batch.wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)
        mix = self.hparams.mixup_alpha, self.hparams.mixup_probability
        spec, labels = mixup(spec, batch.labels, *mix, self.generator)
        spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        frames = self.valid_frames(batch, mixed=labels is not batch.labels)
        return self.modules.classifier(spec, frames), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the cross-entropy, or the binary one per positive label."""
        logits, labels = predictions[0].float(), predictions[1]
        if isinstance(self.evaluation, SingleLabelEvaluation):
            training = stage == sb.Stage.TRAIN
            smoothing = self.hparams.label_smoothing if training else 0.0
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        total = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return self.divide_over_step(total, labels.sum(), stage)


def prepare_data(hparams: dict) -> LabelSet | None:
    """Write the manifests if needed; return the classes, if there are labels."""
    source, manifests = hparams["data_folder"], Path(hparams["manifest_folder"])
    if hparams["corpus"] == "folder":
        tables = hparams["labels"], hparams["test_labels"]
        options = [source, manifests, hparams["max_seconds"], *map(str, tables)]
        run_on_main(prepare_own_data, args=options)
    elif hparams["corpus"] != "shards":  # their manifests are beside them
        raise ExperimentError(f"corpus {hparams['corpus']}: must be folder or shards")
    has_labels = (manifests / "labels.csv").is_file()
    return read_labels(manifests / "labels.csv") if has_labels else None


def required_labels(hparams: dict) -> LabelSet:
    """Return the classes: two or more, as many as the classifier's outputs."""
    labels = prepare_data(hparams)
    if labels is None:
        raise ExperimentError(
            f"{hparams['data_folder']}: no labels to fine-tune on (add a labels.csv, "
            "give --labels TABLE, or put the recordings of each class into a folder)"
        )
    if len(labels) < 2:
        raise ExperimentError(
            f"{hparams['data_folder']}: '{labels.names[0]}' is the only class (two are "
            "needed to tell them apart)"
        )
    return require_classes(labels, hparams)


def manifest(hparams: dict, name: str) -> Path:
    """Return the manifest of a subset; that of the fold, if one is given."""
    return find_manifest(hparams["manifest_folder"], name, hparams["fold"])


def dataset(
    hparams: dict, name: str, labels: LabelSet | None, replace: bool = False
) -> ClipDataset:
    """Return the clips of ``pretrain``, ``balanced_train``, ``valid`` or ``eval``.

    With `replace`, unreadable clips are substituted.
    """
    root, seconds = hparams["data_folder"], hparams["max_seconds"]
    return audio_dataset(
        manifest(hparams, name), root, labels, seconds, replace=replace
    )


def choose_evaluation(hparams: dict) -> Evaluation:
    """Return how clips are classified: with one label each, or any number."""
    mode = hparams["label_mode"]
    paths = [manifest(hparams, name) for name in (TRAINED, "valid", "eval")]
    example = find_several_labels(path for path in paths if path.is_file())
    if mode == "single" and example:
        raise ExperimentError(f"label_mode single: {example} has several labels")
    single = mode == "single" or (mode == "auto" and not example)
    reason = f"{example} has several labels" if example else "each clip has one label"
    logger.info(
        "%s (%s; label_mode %s)",
        "Softmax, accuracy" if single else "Sigmoid, mean average precision",
        *(reason, mode),
    )
    return SingleLabelEvaluation() if single else MultiLabelEvaluation()


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train; labels, if there are any, serve the kNN score only."""
    labels = prepare_data(hparams)
    train = dataset(hparams, hparams["train_manifest"], None, replace=True)
    brain = OwnDataPretrainBrain.from_hparams(hparams, run_opts)
    if not manifest(hparams, TRAINED).is_file():
        share = min(hparams["held_out"], MAX_HELD_OUT / len(train))
        train, valid = hold_out(train, share)
    else:
        labeled = dataset(hparams, TRAINED, labels, replace=True)
        gallery, valid = hold_out(labeled, hparams["held_out"])
        brain.probe_sets = gallery, valid
    brain.fit_steps(train, valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch.

    With clips for validation, or a share of the training clips by ``held_out``, the
    best epoch is chosen on those and then tested on the evaluation clips; otherwise it
    is chosen on the latter.
    """
    labels = required_labels(hparams)
    if hparams["pretrained"] != "none":
        initialize_encoder(hparams["classifier"].encoder, hparams["pretrained"])
    train = dataset(hparams, hparams["train_manifest"], labels, replace=True)
    valid = test_set = dataset(hparams, "eval", labels)
    if manifest(hparams, "valid").is_file():
        valid = dataset(hparams, "valid", labels)
    elif hparams["held_out"]:
        train, valid = hold_out(train, hparams["held_out"])
        valid = valid.without_substitutes()
    brain = OwnDataFinetuneBrain.from_hparams(hparams, run_opts)
    brain.label_set, brain.evaluation = labels, choose_evaluation(hparams)
    brain.test_set = test_set
    brain.fit_steps(train, valid)
    results = {"best": brain.best()}
    if valid is not test_set and not brain.was_complete():
        results["test"] = brain.test(test_set)
    run_on_main(brain.write_results, kwargs=results)


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Evaluate a fine-tuned checkpoint on the evaluation clips."""
    labels = required_labels(hparams)
    modules = finetuned_modules(hparams["pretrained"], labels)
    brain = OwnDataFinetuneBrain(modules, hparams=hparams, run_opts=run_opts)
    brain.label_set, brain.evaluation = labels, choose_evaluation(hparams)
    scores = brain.test(dataset(hparams, "eval", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        TASKS = {"pretrain": pretrain, "finetune": finetune, "test": test}
        TASKS["test" if RUN_OPTS["test_only"] else HPARAMS["task"]](HPARAMS, RUN_OPTS)
        shutdown()
