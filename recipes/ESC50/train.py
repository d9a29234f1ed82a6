"""Pre-train or fine-tune EAT on ESC-50, with one fold held out.

    python train.py hparams/finetune.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL --fold 1
    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN --fold 1

Re-run the same command to resume an interrupted run. With ``--test_only``, a
fine-tuned MODEL is evaluated on the fold.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch.nn.functional as F
from esc50_prepare import prepare_esc50
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import roll_and_gain, spec_augment
from eat.data.dataset import Batch, ClipDataset, audio_dataset, hold_out
from eat.data.manifest import LabelSet, read_labels
from eat.errors import ExperimentError, exit_on_error
from eat.evaluation.per_class import SingleLabelEvaluation
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.model.patching import grid_of
from eat.pretraining.model import PretrainingOutput
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class ESC50PretrainBrain(PretrainBrain):
    """Self-supervised pre-training on four folds, without labels."""

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


class ESC50FinetuneBrain(FinetuneBrain):
    """Single-label classification, evaluated by accuracy."""

    evaluation = SingleLabelEvaluation()

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Return logits and one-hot labels `[B, C]`, augmented in training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, training = batch.wav, stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)  # [B, T, F]
        if training:
            spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        return self.model_for(stage)(spec, self.valid_frames(batch)), batch.labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the cross-entropy, with label smoothing in training."""
        logits, labels = predictions
        training = stage == sb.Stage.TRAIN
        smoothing = self.hparams.label_smoothing if training else 0.0
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def prepare_data(hparams: dict) -> LabelSet:
    """Write the manifests if needed; return the classes."""
    if hparams["fold"] not in range(1, 6):
        raise ExperimentError(f"fold {hparams['fold']}: must be 1 to 5")
    manifests = Path(hparams["manifest_folder"])
    run_on_main(prepare_esc50, args=[hparams["data_folder"], manifests])
    return read_labels(manifests / "labels.csv")


def dataset(hparams: dict, part: str, labels: LabelSet | None) -> ClipDataset:
    """Return the clips of the fold (``test``) or of the four others (``train``).

    Unreadable training clips are substituted.
    """
    path = Path(hparams["manifest_folder"]) / f"{part}_{hparams['fold']}.csv"
    replace = part == "train"
    return audio_dataset(
        path, hparams["data_folder"], labels, hparams["max_seconds"], replace=replace
    )


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train on four folds; labels serve the kNN score only."""
    labels = prepare_data(hparams)
    brain = ESC50PretrainBrain.from_hparams(hparams, run_opts)
    labeled = dataset(hparams, "train", labels)
    brain.probe_sets = hold_out(labeled, hparams["held_out"])
    brain.fit_steps(dataset(hparams, "train", None), brain.probe_sets[1])
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch."""
    labels = require_classes(prepare_data(hparams), hparams)
    if hparams["pretrained"] != "none":
        initialize_encoder(hparams["classifier"].encoder, hparams["pretrained"])
    brain = ESC50FinetuneBrain.from_hparams(hparams, run_opts)
    brain.label_set = labels
    train, valid = (dataset(hparams, part, labels) for part in ("train", "test"))
    brain.fit_steps(train, valid)
    run_on_main(brain.write_results, kwargs={"best": brain.best()})


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Evaluate a fine-tuned checkpoint on the fold."""
    labels = require_classes(prepare_data(hparams), hparams)
    modules = finetuned_modules(hparams["pretrained"], labels)
    brain = ESC50FinetuneBrain(modules, hparams=hparams, run_opts=run_opts)
    brain.label_set = labels
    scores = brain.test(dataset(hparams, "test", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        TASKS = {"pretrain": pretrain, "finetune": finetune, "test": test}
        TASKS["test" if RUN_OPTS["test_only"] else HPARAMS["task"]](HPARAMS, RUN_OPTS)
        shutdown()
