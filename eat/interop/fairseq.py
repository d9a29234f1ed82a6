"""Official EAT checkpoints (fairseq ``.pt``), read without fairseq.

A file's ``model`` entry contains the student's weights and, after pre-training, the
teacher's under ``_ema``; ``cfg`` is the configuration used in training. Files are read
with ``weights_only=True``: nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eat.errors import CheckpointError
from eat.model.patching import PATCH, sincos_positions

MODALITY = "modality_encoders.IMAGE."
POSITIONS = MODALITY + "fixed_positional_encoder.positions"
FREQUENCY_PATCHES = 8

# Mean and standard deviation of the log-mel, as in the official data loader.
NORMALIZATION = {
    "AudioSet": (-4.268, 4.569),
    "ESC-50": (-6.627, 5.359),
    "Speech Commands V2": (-6.846, 5.565),
}

# Prefix of an official name -> prefix of ours.
NAMES = {
    MODALITY + "extra_tokens": "encoder.cls_token",
    MODALITY + "local_encoder.proj.": "encoder.patch_embedding.proj.",
    MODALITY + "context_encoder.norm.": "encoder.norm.",
    MODALITY + "decoder.blocks.": "decoder.convolutions.",
    MODALITY + "decoder.proj.": "decoder.proj.",
    "blocks.": "encoder.blocks.",
}

# Width, depth and number of heads in the settings.
encoder_sizes = itemgetter("embed_dim", "depth", "num_heads")

# Official prediction mode -> our pooling.
POOLINGS = {"CLS_TOKEN": "cls", "MEAN_POOLING": "mean", "LIN_SOFTMAX": "linear_softmax"}


def read_fairseq(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an official checkpoint as a config and a state in our terms.

    Returns what :func:`eat.interop.pretrained.read_model` returns for our folders.
    Raises `CheckpointError` if the file is not an official EAT checkpoint, or cannot be
    read safely.
    """
    checkpoint = _read_safely(path)
    official, settings = checkpoint.get("model"), checkpoint.get("cfg")
    if not isinstance(official, Mapping) or not isinstance(settings, Mapping):
        raise CheckpointError(
            f"{path}: no 'model' and 'cfg' entries (not a fairseq checkpoint)"
        )
    convert = _convert_classifier if "head.weight" in official else _convert_pretraining
    try:
        config, state = convert(official, settings["model"], path)
        return {**config, "frontend": _frontend_config(settings["task"])}, state
    except KeyError as error:
        raise CheckpointError(
            f"{path}: has no {error} (a fairseq checkpoint, but not of an EAT model)"
        ) from error


def our_name(official: str) -> str | None:
    """Return our name of an official student parameter; None if it has none."""
    for theirs, ours in NAMES.items():
        if official.startswith(theirs):
            name = ours + official.removeprefix(theirs)
            if name.startswith("decoder.convolutions."):
                # The official layer is a Sequential whose first module convolves.
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            return name
    return None


def student_state(official: Mapping[str, Tensor], path: str | Path) -> dict:
    """Return the student's weights under our names, in fp32.

    Raises `CheckpointError` if its positions are not the fixed sine-cosine ones.
    """
    _check_positions(official[POSITIONS][0].float(), path)
    return {
        name: tensor.float() for k, tensor in official.items() if (name := our_name(k))
    }


def _read_safely(path: str | Path) -> Mapping:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file or folder (check the path; models on the Hugging "
            "Face hub must be downloaded first)"
        ) from error
    # A corrupt pickle raises anything, and torch's message recommends unsafe loading.
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}); it is "
            "corrupt or contains pickled objects, which are never loaded"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f"{path}: contains a {type(checkpoint).__name__}, not a mapping"
        )
    return checkpoint


def _convert_pretraining(
    official: Mapping, settings: Mapping, path: str | Path
) -> tuple[dict, dict[str, Tensor]]:
    decoder = settings["modalities"]["image"]["decoder"]
    student = student_state(official, path)
    teacher = student_state(official["_ema"], path)
    state = {f"student.{name}": tensor for name, tensor in student.items()}
    state |= {f"teacher.{name}": tensor for name, tensor in teacher.items()}
    config = {
        "kind": "pretraining",
        "encoder": encoder_config(official, *encoder_sizes(settings)),
        "decoder": {
            "dim": decoder["decoder_dim"],
            "depth": decoder["decoder_layers"],
            "kernel": decoder["decoder_kernel"],
            "groups": decoder["decoder_groups"],
        },
        # The official utterance loss is a sum over a GPU's 12 clips x 16 clones.
        "utterance_weight": settings["cls_loss"] * 12 * settings["clone_batch"],
    }
    return config, state


def _convert_classifier(
    official: Mapping, settings: Mapping, path: str | Path
) -> tuple[dict, dict[str, Tensor]]:
    inner = {name.removeprefix("model."): value for name, value in official.items()}
    state = student_state(inner, path)
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = official[f"fc_norm.{part}"]
        state[f"head.{part}"] = official[f"head.{part}"]
    pretraining = settings["pretrained_model_args"]["model"]
    config = {
        "kind": "classifier",
        "encoder": encoder_config(inner, *encoder_sizes(pretraining)),
        "num_classes": len(official["head.weight"]),
        "pooling": POOLINGS[str(settings["prediction_mode"]).split(".")[-1]],
    }
    return config, state


def encoder_config(official: Mapping, dim: int, depth: int, num_heads: int) -> dict:
    """Return the encoder's config; the number of positions is that of the weights."""
    return {
        "dim": dim,
        "depth": depth,
        "num_heads": num_heads,
        "max_frames": official[POSITIONS].shape[1] // FREQUENCY_PATCHES * PATCH,
        "num_mels": FREQUENCY_PATCHES * PATCH,
        "position_scale": 1.0,
    }


def _frontend_config(task: Mapping) -> dict:
    """Return the constants of the corpus that the task's flags name."""
    speech = "Speech Commands V2" if task["spcv2_eval"] else "AudioSet"
    mean, std = NORMALIZATION["ESC-50" if task["esc50_eval"] else speech]
    return {"mean": mean, "std": std, "num_frames": task["target_length"]}


def _check_positions(positions: Tensor, path: str | Path) -> None:
    """Refuse positions `[N, D]` that are not the fixed ones, which we recompute."""
    num_positions, dim = positions.shape
    grid = (num_positions // FREQUENCY_PATCHES, FREQUENCY_PATCHES)
    difference = sincos_positions(dim, grid) - positions
    if difference.abs().max() > 2e-3:  # fp16 files are off by up to 5e-4
        raise CheckpointError(
            f"{path}: its positions are not EAT's fixed sine-cosine ones (was it "
            "trained with a modified position encoder?)"
        )
