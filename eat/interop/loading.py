"""Build models from checkpoints, ours or official."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from eat.audio.frontend import LogMel
from eat.errors import CheckpointError
from eat.interop.fairseq import read_official
from eat.interop.hugging_face import is_hugging_face, read_hugging_face
from eat.interop.pretrained import load_strictly, read_model
from eat.model.classifier import EATClassifier
from eat.model.decoder import CNNDecoder
from eat.model.encoder import EATEncoder
from eat.pretraining.model import EATForPreTraining, EATStudent
from eat.pretraining.teacher import EMATeacher


def load_encoder(path: str | Path, weights: str = "student") -> EATEncoder:
    """Load an encoder from a checkpoint, pre-trained or fine-tuned.

    Parameters
    ----------
    path
        A model folder of ours, an official fairseq ``.pt`` file, or an official
        Hugging Face folder.
    weights
        ``student`` (what the paper fine-tunes) or ``teacher``; a fine-tuned
        checkpoint has only one encoder, its ``student``.

    Returns
    -------
    EATEncoder
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or has no such weights.
    """
    config, state = read_checkpoint(path)
    prefix = "encoder."
    if config["kind"] == "pretraining":
        prefix = f"{weights}.encoder."
    elif weights != "student":
        raise CheckpointError(f"{path}: a {config['kind']} has no {weights} weights")
    with _config_must_fit(path):
        encoder = EATEncoder(**config["encoder"])
    load_strictly(encoder, _below(prefix, state, path), path)
    return encoder.eval()


def load_frontend(path: str | Path) -> LogMel:
    """The spectrograms that a checkpoint's model expects: its length and constants.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or damaged.
    """
    config, _ = read_checkpoint(path)
    with _config_must_fit(path):
        return LogMel(**config["frontend"])


def initialize_encoder(encoder: EATEncoder, path: str | Path) -> None:
    """Give an encoder the student's weights of a checkpoint, as fine-tuning does.

    Raises
    ------
    CheckpointError
        If the checkpoint's encoder has another size or options than this one.
    """
    loaded = load_encoder(path)
    for option, value in encoder.config.items():
        # The length of the fixed table of positions may differ.
        if option != "max_frames" and loaded.config[option] != value:
            raise CheckpointError(
                f"{path}: its encoder has {option} {loaded.config[option]}, the YAML "
                f"file {value} (use the settings it was pre-trained with)"
            )
    load_strictly(encoder, loaded.state_dict(), path)


def load_classifier(path: str | Path) -> EATClassifier:
    """Load a fine-tuned classifier, in evaluation mode: ``clf(spec)`` gives logits.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, damaged or not a classifier.
    """
    config, state = _read_kind(path, "classifier")
    with _config_must_fit(path):
        encoder = EATEncoder(**config["encoder"])
        classifier = EATClassifier(encoder, config["num_classes"], config["pooling"])
    load_strictly(classifier, state, path)
    return classifier.eval()


def load_pretraining(path: str | Path) -> EATForPreTraining:
    """Load student, decoder and teacher of a pre-training checkpoint.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, damaged or not a pre-trained model.
    """
    config, state = _read_kind(path, "pretraining")
    config, state = _rename_center(config, state)
    with _config_must_fit(path):
        encoder = EATEncoder(**config["encoder"])
        decoder = CNNDecoder(**config["decoder"])
        student = EATStudent(encoder, decoder, **config.get("student", {}))
        teacher = EMATeacher(encoder, **config.get("teacher", {}))
        model = EATForPreTraining(student, teacher, config["utterance_weight"])
    load_strictly(model, state, path)
    return model


def read_checkpoint(path: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Config and state of a model folder, ours or theirs, or an official file.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    if is_hugging_face(path):
        return read_hugging_face(path)
    if Path(path).is_dir():
        return read_model(path)
    return read_official(path)


@contextmanager
def _config_must_fit(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its config does not describe such a model ({error}; was it "
            "edited, or made by another version?)"
        ) from error


def _read_kind(path: str | Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    config, state = read_checkpoint(path)
    if config["kind"] != kind:
        raise CheckpointError(
            f"{path}: holds a {config['kind']} model, not a {kind} one"
        )
    return config, state


def _rename_center(
    config: dict, state: dict[str, Tensor]
) -> tuple[dict, dict[str, Tensor]]:
    """Translate the names that version 0.1 gave to the centering of the targets."""
    teacher = {
        key.replace("centre", "center"): value
        for key, value in config.get("teacher", {}).items()
    }
    weights = {
        key.replace("teacher.centre", "teacher.center"): state[key] for key in state
    }
    return {**config, "teacher": teacher}, weights


def _below(
    prefix: str, state: Mapping[str, Tensor], path: str | Path
) -> dict[str, Tensor]:
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    if not found:
        raise CheckpointError(f"{path}: no weights under '{prefix}'")
    return found
