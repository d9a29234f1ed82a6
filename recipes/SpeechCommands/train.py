"""Pre-train or fine-tune EAT on Speech Commands V2 (35 words).

    python train.py hparams/finetune.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL
    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN

The same command on an existing RUN resumes it. ``--test_only`` with a fine-tuned MODEL
judges it on the testing list.
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
from eat.evaluation.metrics import accuracy
from eat.evaluation.per_class import write_confusion
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class SpeechCommandsPretrainBrain(PretrainBrain):
    """EAT pre-training; nothing about it depends on Speech Commands."""


class SpeechCommandsFinetuneBrain(FinetuneBrain):
    """One word a clip, learned as independent labels, judged by accuracy."""

    metric = "accuracy"

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Logits and (mixed) labels, `[B, C]` each; augments while training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, labels = batch.wav, batch.target
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)
        if training:
            if self.hparams.noise:
                spec = noise_and_shift(spec, self.generator)
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
        """Binary cross-entropy of all words, divided by the clips, as official."""
        logits, labels = predictions
        total = F.binary_cross_entropy_with_logits(
            logits.float(), labels, reduction="sum"
        )
        return total / len(labels)

    def compute_metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Share of clips whose class scores highest."""
        return {"accuracy": accuracy(logits, labels.argmax(dim=1))}

    def write_details(self, logits: Tensor, labels: Tensor) -> None:
        """Write which class was taken for which."""
        path = Path(self.hparams.output_folder) / "confusion.csv"
        write_confusion(path, self.label_set.names, logits, labels)


def prepare_data(hparams: dict) -> LabelSet:
    """Make the manifests if need be; the words."""
    folders = [hparams["data_folder"], hparams["manifest_folder"]]
    run_on_main(prepare_speech_commands, args=folders)
    return read_labels(Path(hparams["manifest_folder"]) / "labels.csv")


def dataset(
    hparams: dict, part: str, labels: LabelSet | None, replace: bool = False
) -> ClipDataset:
    """Clips of ``train``, ``valid`` or ``test``, by the corpus's own lists.

    With `replace`, others stand in for damaged clips.
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
    brain = SpeechCommandsPretrainBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.probe_sets = gallery, valid
    brain.fit_steps(dataset(hparams, "train", None, replace=True), valid)
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune; the best epoch of the validation list is judged on the test list."""
    labels = require_classes(prepare_data(hparams), hparams)
    classifier = hparams["modules"]["classifier"]
    if hparams["pretrained"] != "none":
        initialize_encoder(classifier.encoder, hparams["pretrained"])
    brain = SpeechCommandsFinetuneBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.label_set = labels
    train = dataset(hparams, "train", labels, replace=True)
    valid, test_set = (dataset(hparams, part, labels) for part in ("valid", "test"))
    brain.fit_steps(train, valid)
    scores = None if brain.was_complete() else brain.test(test_set)
    run_on_main(brain.write_results, kwargs={"best": brain.best(), "test": scores})


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Judge a fine-tuned checkpoint, ours or official, on the testing list."""
    labels = require_classes(prepare_data(hparams), hparams)
    brain = SpeechCommandsFinetuneBrain(
        modules=finetuned_modules(hparams["pretrained"], labels),
        hparams=hparams,
        run_opts=run_opts,
    )
    brain.label_set = labels
    scores = brain.test(dataset(hparams, "test", labels))
    run_on_main(write_results, [hparams["output_folder"]], {"test": scores})


if __name__ == "__main__":
    with exit_on_error():
        HPARAMS, RUN_OPTS = start_experiment(sys.argv[1:])
        task = "test" if RUN_OPTS["test_only"] else HPARAMS["task"]
        run = {"pretrain": pretrain, "finetune": finetune, "test": test}[task]
        run(HPARAMS, RUN_OPTS)
        shutdown()
