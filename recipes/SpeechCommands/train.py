"""Pre-train or fine-tune EAT on Speech Commands V2 (35 words).

    python train.py hparams/finetune.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL
    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN

Re-run the same command to resume an interrupted run. With ``--test_only``, a
fine-tuned MODEL is evaluated on the test list.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch.nn.functional as F
from speech_commands_prepare import prepare_speech_commands
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from eat.audio.augment import mixup, noise_and_shift, roll_and_gain, spec_augment
from eat.data.dataset import Batch, ClipDataset, audio_dataset, hold_out
from eat.data.manifest import LabelSet, read_labels
from eat.errors import exit_on_error
from eat.evaluation.per_class import SingleLabelEvaluation
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.model.patching import grid_of
from eat.pretraining.model import PretrainingOutput
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class SpeechCommandsPretrainBrain(PretrainBrain):
    """Self-supervised pre-training on the words' recordings, without labels."""

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


class SpeechCommandsFinetuneBrain(FinetuneBrain):
    """One word a clip, trained as independent labels and evaluated by accuracy."""

    evaluation = SingleLabelEvaluation()

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Return logits and labels `[B, C]`, augmented and mixed in training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, labels = batch.wav, batch.labels
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)  # [B, T, F]
        if training and self.hparams.noise:
            spec = noise_and_shift(spec, self.generator)
        if training:
            mix = self.hparams.mixup_alpha, self.hparams.mixup_probability
            spec, labels = mixup(spec, labels, *mix, self.generator)
            spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        frames = self.valid_frames(batch, mixed=labels is not batch.labels)
        return self.model_for(stage)(spec, frames), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Return the summed binary cross-entropy per clip, as the official code."""
        logits, labels = predictions[0].float(), predictions[1]
        total = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return total / len(labels)


def prepare_data(hparams: dict) -> LabelSet:
    """Write the manifests if needed; return the words."""
    manifests = Path(hparams["manifest_folder"])
    run_on_main(prepare_speech_commands, args=[hparams["data_folder"], manifests])
    return read_labels(manifests / "labels.csv")


def dataset(
    hparams: dict, part: str, labels: LabelSet | None, replace: bool = False
) -> ClipDataset:
    """Return the clips of ``train``, ``valid`` or ``test``, by the corpus's lists.

    With `replace`, unreadable clips are substituted.
    """
    path = Path(hparams["manifest_folder"]) / f"{part}.csv"
    return audio_dataset(
        path, hparams["data_folder"], labels, hparams["max_seconds"], replace=replace
    )


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train on the training clips; labels serve the kNN score only."""
    labels = prepare_data(hparams)
    train, valid = (
        dataset(hparams, part, labels, replace=True) for part in ("train", "valid")
    )
    gallery, _ = hold_out(train, hparams["held_out"])
    brain = SpeechCommandsPretrainBrain.from_hparams(hparams, run_opts)
    brain.probe_sets = gallery, valid
    brain.fit_steps(dataset(hparams, "train", None, replace=True), valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune; evaluate the best epoch of the validation list on the test list."""
    labels = require_classes(prepare_data(hparams), hparams)
    if hparams["pretrained"] != "none":
        initialize_encoder(hparams["classifier"].encoder, hparams["pretrained"])
    brain = SpeechCommandsFinetuneBrain.from_hparams(hparams, run_opts)
    brain.label_set = labels
    train = dataset(hparams, "train", labels, replace=True)
    valid, test_set = (dataset(hparams, part, labels) for part in ("valid", "test"))
    brain.test_set = test_set
    brain.fit_steps(train, valid)
    scores = None if brain.was_complete() else brain.test(test_set)
    run_on_main(brain.write_results, kwargs={"best": brain.best(), "test": scores})


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Evaluate a fine-tuned checkpoint on the test list."""
    labels = require_classes(prepare_data(hparams), hparams)
    modules = finetuned_modules(hparams["pretrained"], labels)
    brain = SpeechCommandsFinetuneBrain(modules, hparams=hparams, run_opts=run_opts)
    brain.label_set = labels
    scores = brain.test(dataset(hparams, "test", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        TASKS = {"pretrain": pretrain, "finetune": finetune, "test": test}
        TASKS["test" if RUN_OPTS["test_only"] else HPARAMS["task"]](HPARAMS, RUN_OPTS)
        shutdown()
