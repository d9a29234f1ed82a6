"""Pre-train or fine-tune EAT on AudioSet.

    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN
    python train.py hparams/finetune_as20k.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL

Re-run the same command to resume an interrupted run. With ``--test_only``, a
fine-tuned MODEL is evaluated on the evaluation clips.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch.nn.functional as F
from audioset_prepare import prepare_audioset
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import mixup, roll_and_gain, spec_augment
from eat.data.dataset import Batch, ClipDataset, audio_dataset, hold_out
from eat.data.manifest import LabelSet, read_labels
from eat.data.samplers import BalancingWeights, WeightedSampler
from eat.errors import ExperimentError, exit_on_error
from eat.evaluation.per_class import MultiLabelEvaluation
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.model.patching import grid_of
from eat.pretraining.model import PretrainingOutput
from eat.training.brain import EATBrain
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class AudioSetPretrainBrain(PretrainBrain):
    """Predict a teacher's features of full clips from their visible patches."""

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


class AudioSetFinetuneBrain(FinetuneBrain):
    """Multi-label classification, evaluated by mean average precision."""

    evaluation = MultiLabelEvaluation()

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Return logits and labels `[B, C]`, augmented and mixed in training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, labels = batch.wav, batch.labels
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)  # [B, T, F]
        if training:
            mix = self.hparams.mixup_alpha, self.hparams.mixup_probability
            spec, labels = mixup(spec, labels, *mix, self.generator)
            spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        frames = self.valid_frames(batch, mixed=labels is not batch.labels)
        return self.model_for(stage)(spec, frames), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the binary cross-entropy per positive label, as the official code."""
        logits, labels = predictions[0].float(), predictions[1]
        total = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return self.divide_over_step(total, labels.sum(), stage)


def prepare_data(hparams: dict) -> LabelSet | None:
    """Write the manifests if needed; return the classes, if the clips have labels."""
    manifests = Path(hparams["manifest_folder"])
    if hparams["corpus"] == "audioset":
        run_on_main(prepare_audioset, args=[hparams["data_folder"], manifests])
    elif hparams["corpus"] != "shards":  # their manifests are beside them
        raise ExperimentError(f"corpus {hparams['corpus']}: must be audioset or shards")
    labels = manifests / "labels.csv"
    return read_labels(labels) if labels.is_file() else None


def required_labels(hparams: dict) -> LabelSet:
    """Return the classes, which must be as many as the classifier's outputs."""
    labels = prepare_data(hparams)
    if labels is None:
        raise ExperimentError(f"{hparams['manifest_folder']}: has no labels.csv")
    return require_classes(labels, hparams)


def dataset(
    hparams: dict, manifest: str, labels: LabelSet | None, replace: bool = False
) -> ClipDataset:
    """Return the clips of a manifest; `replace` substitutes unreadable ones."""
    path = Path(hparams["manifest_folder"]) / f"{manifest}.csv"
    return audio_dataset(
        path, hparams["data_folder"], labels, hparams["max_seconds"], replace=replace
    )


def weighted_sampler(
    brain: EATBrain, train: ClipDataset, draws: int
) -> WeightedSampler:
    """Return a sampler that draws rare classes as often as common ones."""
    sizes = draws, brain.clips_per_epoch
    return WeightedSampler(BalancingWeights(train), *sizes, brain.hparams.seed)


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train on all clips; labels of balanced clips serve the kNN score only."""
    labels = prepare_data(hparams)
    train = dataset(hparams, hparams["train_manifest"], None, replace=True)
    brain = AudioSetPretrainBrain.from_hparams(hparams, run_opts)
    if (Path(hparams["manifest_folder"]) / "balanced_train.csv").is_file():
        labeled = dataset(hparams, "balanced_train", labels, replace=True)
        brain.probe_sets = hold_out(labeled, hparams["held_out"])
        valid = brain.probe_sets[1]
    else:
        train, valid = hold_out(train, min(hparams["held_out"], 2000 / len(train)))
    brain.fit_steps(train, valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch."""
    labels = required_labels(hparams)
    train = dataset(hparams, hparams["train_manifest"], labels, replace=True)
    test_set = valid = dataset(hparams, "eval", labels)
    if hparams["held_out"]:
        train, valid = hold_out(train, hparams["held_out"])
        valid = valid.without_substitutes()
    if hparams["pretrained"] != "none":
        initialize_encoder(hparams["classifier"].encoder, hparams["pretrained"])
    brain = AudioSetFinetuneBrain.from_hparams(hparams, run_opts)
    brain.label_set, brain.test_set = labels, test_set
    sampler = None
    if hparams["weighted_draws"]:
        sampler = weighted_sampler(brain, train, hparams["weighted_draws"])
    brain.fit_steps(train, valid, sampler)
    results = {"best": brain.best()}
    if hparams["held_out"] and not brain.was_complete():
        results["test"] = brain.test(test_set)
    run_on_main(brain.write_results, kwargs=results)


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Evaluate a fine-tuned checkpoint on the evaluation clips."""
    labels = required_labels(hparams)
    modules = finetuned_modules(hparams["pretrained"], labels)
    brain = AudioSetFinetuneBrain(modules, hparams=hparams, run_opts=run_opts)
    brain.label_set = labels
    scores = brain.test(dataset(hparams, "eval", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        TASKS = {"pretrain": pretrain, "finetune": finetune, "test": test}
        TASKS["test" if RUN_OPTS["test_only"] else HPARAMS["task"]](HPARAMS, RUN_OPTS)
        shutdown()
