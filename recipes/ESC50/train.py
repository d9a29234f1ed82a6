"""Pre-train or fine-tune EAT on ESC-50, one fold held out.

    python train.py hparams/finetune.yaml --data_folder DIR --output_folder RUN \
        --pretrained MODEL --fold 1
    python train.py hparams/pretrain.yaml --data_folder DIR --output_folder RUN --fold 1

The same command on an existing RUN resumes it. ``--test_only`` with a fine-tuned MODEL
judges it on the fold.
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
from eat.evaluation.metrics import accuracy
from eat.evaluation.per_class import write_confusion
from eat.experiment.folder import start_experiment
from eat.experiment.results import write_results
from eat.interop.loading import initialize_encoder
from eat.training.finetune import FinetuneBrain, finetuned_modules, require_classes
from eat.training.pretrain import PretrainBrain
from eat.utils.distributed import shutdown


class ESC50PretrainBrain(PretrainBrain):
    """EAT pre-training; nothing about it depends on ESC-50."""


class ESC50FinetuneBrain(FinetuneBrain):
    """One class a clip, judged by accuracy."""

    metric = "accuracy"

    def compute_forward(self, batch: Batch, stage: sb.Stage) -> tuple[Tensor, Tensor]:
        """Logits and one-hot labels, `[B, C]` each; augments while training."""
        batch = batch.to(self.device, non_blocking=True)
        wav, training = batch.wav, stage == sb.Stage.TRAIN
        if training and self.hparams.roll:
            wav = roll_and_gain(wav, batch.lengths, self.generator)
        spec = self.modules.frontend(wav, batch.lengths)
        if training:
            spec = spec_augment(spec, self.hparams.spec_augment_ratio, self.generator)
        return self.classify(spec, stage), batch.target

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor], batch: Batch, stage: sb.Stage
    ) -> Tensor:
        """Cross-entropy; labels are smoothed in training only."""
        logits, labels = predictions
        training = stage == sb.Stage.TRAIN
        smoothing = self.hparams.label_smoothing if training else 0.0
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def compute_metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Share of clips whose class scores highest."""
        return {"accuracy": accuracy(logits, labels.argmax(dim=1))}

    def write_details(self, logits: Tensor, labels: Tensor) -> None:
        """Write which class was taken for which."""
        path = Path(self.hparams.output_folder) / "confusion.csv"
        write_confusion(path, self.label_set.names, logits, labels)


def prepare_data(hparams: dict) -> LabelSet:
    """Make the manifests if need be; the classes."""
    if hparams["fold"] not in range(1, 6):
        raise ExperimentError(f"fold {hparams['fold']}: must be 1 to 5")
    folders = [hparams["data_folder"], hparams["manifest_folder"]]
    run_on_main(prepare_esc50, args=folders)
    return read_labels(Path(hparams["manifest_folder"]) / "labels.csv")


def dataset(hparams: dict, part: str, labels: LabelSet | None) -> ClipDataset:
    """Clips of the fold (``test``) or of the four others (``train``).

    In training others stand in for damaged ones.
    """
    path = Path(hparams["manifest_folder"]) / f"{part}_{hparams['fold']}.csv"
    replace = part == "train"
    return audio_dataset(
        path, hparams["data_folder"], labels, hparams["max_seconds"], replace=replace
    )


def pretrain(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Pre-train on four folds; labels serve the kNN score only."""
    labels = prepare_data(hparams)
    probe_sets = hold_out(dataset(hparams, "train", labels), hparams["held_out"])
    brain = ESC50PretrainBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.probe_sets = probe_sets
    brain.fit_steps(dataset(hparams, "train", None), probe_sets[1])
    run_on_main(brain.write_results)


def finetune(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Fine-tune a pre-trained encoder, or train the same network from scratch."""
    labels = require_classes(prepare_data(hparams), hparams)
    classifier = hparams["modules"]["classifier"]
    if hparams["pretrained"] != "none":
        initialize_encoder(classifier.encoder, hparams["pretrained"])
    brain = ESC50FinetuneBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.label_set = labels
    train, valid = (dataset(hparams, part, labels) for part in ("train", "test"))
    brain.fit_steps(train, valid)
    run_on_main(brain.write_results, kwargs={"best": brain.best()})


def test(hparams: dict, run_opts: dict[str, Any]) -> None:
    """Judge a fine-tuned checkpoint, ours or official, on the fold."""
    labels = require_classes(prepare_data(hparams), hparams)
    brain = ESC50FinetuneBrain(
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
