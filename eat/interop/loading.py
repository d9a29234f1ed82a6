"""Build models from checkpoints: our folders, fairseq files, Hugging Face folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from eat.audio.frontend import LogMel
from eat.errors import CheckpointError
from eat.interop.fairseq import read_fairseq
from eat.interop.hugging_face import is_hugging_face, read_hugging_face
from eat.interop.pretrained import load_strictly, read_model
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, from which each part of the model can be built.

    The config holds sizes and options of the parts, the state the weights under this
    toolkit's names. Errors begin with the path; a part that the checkpoint does not
    have, or that does not fit it, raises `CheckpointError`.
    """

    path: str | Path
    config: dict[str, Any]
    state: dict[str, Tensor]

    @classmethod
    def read(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint; raises `CheckpointError` if it is missing or corrupt.

        It is a model folder of this toolkit, an official fairseq ``.pt`` file, or a
        downloaded Hugging Face folder of the authors.
        """
        if is_hugging_face(path):
            return cls(path, *read_hugging_face(path))
        if Path(path).is_dir():
            return cls(path, *read_model(path))
        return cls(path, *read_fairseq(path))

    @property
    def kind(self) -> str:
        """``pretraining``, ``classifier``, or ``encoder`` (a Hugging Face folder)."""
        return self.config["kind"]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the logits; None if the checkpoint has none."""
        labels = self.config.get("labels")
        return None if labels is None else tuple(labels)

    def frontend(self, **overrides: float) -> LogMel:
        """Build the front end; `overrides` replace `mean`, `std` or `num_frames`."""
        with self._matching_config():
            return LogMel(**{**self.config.get("frontend", {}), **overrides})

    def encoder(self, weights: str = "student") -> EATEncoder:
        """Build the student's or the teacher's encoder, in evaluation mode."""
        if weights not in ("student", "teacher"):
            raise CheckpointError(
                f"{self.path}: weights '{weights}': choose 'student' or 'teacher'"
            )
        if self.kind != "pretraining" and weights == "teacher":
            raise CheckpointError(f"{self.path}: this {self.kind} has no teacher")
        with self._matching_config():
            encoder = EATEncoder(**self.config["encoder"])
        prefix = f"{weights}.encoder." if self.kind == "pretraining" else "encoder."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.state.items()
            if name.startswith(prefix)
        }
        load_strictly(encoder, state, self.path)
        return encoder.eval()

    def classifier(self) -> EATClassifier:
        """Build the fine-tuned classifier, in evaluation mode."""
        self._require_kind("classifier")
        config = self.config
        with self._matching_config():
            encoder = EATEncoder(**config["encoder"])
            options = {key: config[key] for key in ("num_classes", "pooling")}
            classifier = EATClassifier(encoder, **options)
        load_strictly(classifier, self.state, self.path)
        return classifier.eval()

    def pretraining(self) -> EATForPreTraining:
        """Build student, decoder and teacher."""
        self._require_kind("pretraining")
        config = self.config
        with self._matching_config():
            encoder = EATEncoder(**config["encoder"])
            decoder = CNNDecoder(**config["decoder"])
            student = EATStudent(encoder, decoder, **config.get("student", {}))
            teacher = EMATeacher(encoder, **config.get("teacher", {}))
            model = EATForPreTraining(student, teacher, config["utterance_weight"])
        load_strictly(model, self.state, self.path)
        return model

    def _require_kind(self, kind: str) -> None:
        if self.kind != kind:
            article = "an" if self.kind == "encoder" else "a"
            raise CheckpointError(
                f"{self.path}: {article} {self.kind} model, not a {kind} model"
            )

    @contextmanager
    def _matching_config(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path}: its config does not fit this model ({error}; was it "
                "edited, or written by another version?)"
            ) from error


def load_encoder(path: str | Path, weights: str = "student") -> EATEncoder:
    """Load the encoder of a pre-trained or fine-tuned checkpoint, in evaluation mode.

    `weights` is ``student`` (which the paper fine-tunes) or ``teacher``; a fine-tuned
    checkpoint has only one encoder, its ``student``. Raises `CheckpointError` if the
    checkpoint is missing, corrupt or has no such weights.
    """
    return Checkpoint.read(path).encoder(weights)


def load_frontend(path: str | Path) -> LogMel:
    """Load the front end, with the input length and normalization of a checkpoint."""
    return Checkpoint.read(path).frontend()


def load_classifier(path: str | Path) -> EATClassifier:
    """Load a fine-tuned classifier in evaluation mode: ``clf(spec)`` gives logits."""
    return Checkpoint.read(path).classifier()


def load_pretraining(path: str | Path) -> EATForPreTraining:
    """Load student, decoder and teacher of a pre-training checkpoint."""
    return Checkpoint.read(path).pretraining()


def initialize_encoder(encoder: EATEncoder, path: str | Path) -> None:
    """Load the student's weights of a checkpoint into an encoder, for fine-tuning.

    Raises `CheckpointError` if the checkpoint's encoder differs in size or options.
    """
    loaded = load_encoder(path)
    for option, value in encoder.config.items():
        # The table of fixed positions may be of another length.
        if option != "max_frames" and loaded.config[option] != value:
            raise CheckpointError(
                f"{path}: its encoder has {option} {loaded.config[option]}, the YAML "
                f"file {value} (use the settings of pre-training)"
            )
    load_strictly(encoder, loaded.state_dict(), path)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config and the state of a checkpoint, see :meth:`Checkpoint.read`."""
    checkpoint = Checkpoint.read(path)
    return checkpoint.config, checkpoint.state
