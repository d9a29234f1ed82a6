"""A checkpoint as one module: audio in, features and tags out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import torch

from eat.errors import ExperimentError
from eat.inference.audio_encoder import AudioEncoder
from eat.inference.network import PRECISIONS
from eat.inference.results import (
    GRANULARITIES,
    POOLINGS,
    Features,
    Tag,
    pool,
)
from eat.interop.labels import read_label_names
from eat.interop.loading import Checkpoint
from eat.model.classifier import EATClassifier
from eat.model.encoder import EATEncoder
from eat.model.patching import grid_of

__all__ = [
    "GRANULARITIES",
    "POOLINGS",
    "PRECISIONS",
    "AudioEncoder",
    "Features",
    "Tag",
    "from_pretrained",
    "pool",
]


def from_pretrained(
    source: str | os.PathLike[str],
    weights: str = "student",
    device: str | torch.device | None = None,
    precision: str = "fp32",
    *,
    mean: float | None = None,
    std: float | None = None,
    num_frames: int | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
) -> AudioEncoder:
    """Load a pre-trained or fine-tuned checkpoint as one module, audio to features.

    Parameters
    ----------
    source
        A model folder of this toolkit, an official fairseq ``.pt`` file, or a
        downloaded Hugging Face folder of the authors.
    weights
        ``student`` or ``teacher``; a fine-tuned checkpoint has no teacher.
    device
        Device of the model; by default a GPU if there is one, else the CPU.
    precision
        ``fp32``, or ``bf16`` to run the encoder in autocast.
    mean, std, num_frames
        Override the checkpoint's normalization and number of input frames.
    labels
        Class names in the order of the classifier's outputs, or a file that lists them,
        see `eat.interop.labels.read_label_names`. By default the checkpoint's.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, corrupt or has no such weights.
    ExperimentError
        If its encoder does not support this number of frames, or the device is not
        available.
    ManifestError
        If the file of class names cannot be read.
    ValueError
        If there is not one class name for each output.
    """
    device = _check_device(device)
    checkpoint = Checkpoint.read(Path(source))
    options = {"mean": mean, "std": std, "num_frames": num_frames}
    overrides = {name: value for name, value in options.items() if value is not None}
    frontend = checkpoint.frontend(**overrides)
    network: EATEncoder | EATClassifier
    if checkpoint.kind == "classifier" and weights == "student":
        network = checkpoint.classifier()
    else:
        network = checkpoint.encoder(weights)
    names = _check_labels(labels, network, source) or checkpoint.labels
    model = AudioEncoder(
        frontend, network, names, precision, multi_label=checkpoint.multi_label
    )
    _check_num_frames(frontend.num_frames, model.encoder, source)
    return model.to(device)


def _check_device(device: str | torch.device | None) -> torch.device:
    """Return the device, by default a GPU if there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA
        reason = str(error).splitlines()[0].rstrip(".")
        raise ExperimentError(
            f"device '{device}': not available, {reason} (use 'cpu' or 'cuda')"
        ) from None


def _check_labels(
    labels: Sequence[str] | str | os.PathLike[str] | None,
    network: EATEncoder | EATClassifier,
    source: str | os.PathLike[str],
) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str | os.PathLike):
        names, where = read_label_names(labels), f"labels {os.fspath(labels)}"
    else:
        names, where = tuple(labels), "labels"
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"labels {labels!r}: must be a list of class names")
    if not isinstance(network, EATClassifier):
        raise ValueError(f"{where}: {source} has no classifier (omit them)")
    classes = network.config["num_classes"]
    if len(names) != classes:
        raise ValueError(
            f"{where}: {len(names)} names, but the classifier of {source} has "
            f"{classes} outputs (give one name for each)"
        )
    return names


def _check_num_frames(
    num_frames: int, encoder: EATEncoder, source: str | os.PathLike[str]
) -> None:
    longest = encoder.config["max_frames"]
    if not (isinstance(num_frames, Integral) and 0 < num_frames <= longest):
        raise ExperimentError(
            f"num_frames {num_frames!r}: the encoder of {source} supports integers up "
            f"to {longest}"
        )
    try:
        grid_of(num_frames)
    except ValueError as error:
        raise ExperimentError(f"num_frames {num_frames}: {error}") from None
