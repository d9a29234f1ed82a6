"""Official EAT checkpoints (fairseq ``.pt``) read without fairseq.

A file's ``model`` entry holds the student's weights and, after pre-training, the
teacher's under ``_ema``; ``cfg`` holds the configuration they were made with. Files
are read with ``weights_only=True``: nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eat.errors import CheckpointError
from eat.model.patching import PATCH, sincos_positions

MODALITY = "modality_encoders.IMAGE."
POSITIONS = MODALITY + "fixed_positional_encoder.positions"
FREQUENCY_PATCHES = 8

# Mean and deviation of each corpus's log-mel, as in the official data loader.
NORMALIZATION = {
    "AudioSet": (-4.268, 4.569),
    "ESC-50": (-6.627, 5.359),
    "Speech Commands V2": (-6.846, 5.565),
}

# Beginning of an official name -> beginning of ours.
NAMES = {
    MODALITY + "extra_tokens": "encoder.cls_token",
    MODALITY + "local_encoder.proj.": "encoder.patch_embedding.proj.",
    MODALITY + "context_encoder.norm.": "encoder.norm.",
    MODALITY + "decoder.blocks.": "decoder.convolutions.",
    MODALITY + "decoder.proj.": "decoder.proj.",
    "blocks.": "encoder.blocks.",
}


def read_official(path: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Read an official checkpoint as a config and a state in our terms.

    Returns
    -------
    tuple
        As :func:`eat.interop.pretrained.read_model` gives for a folder of ours.

    Raises
    ------
    CheckpointError
        If the file is not an official EAT checkpoint that can be read safely.
    """
    checkpoint = _read_safely(path)
    official, settings = checkpoint.get("model"), checkpoint.get("cfg")
    if not isinstance(official, Mapping) or not isinstance(settings, Mapping):
        raise CheckpointError(
            f"{path}: no 'model' and 'cfg' entries (not a fairseq file)"
        )
    convert = _convert_classifier if "head.weight" in official else _convert_pretraining
    try:
        config, state = convert(official, settings["model"], path)
        return {**config, "frontend": _frontend_config(settings["task"])}, state
    except KeyError as error:
        raise CheckpointError(
            f"{path}: no {error} in it (a fairseq file, but not an EAT model's)"
        ) from error


def _frontend_config(task: Mapping) -> dict:
    """Normalization constants by the corpus that the task's flags name."""
    corpus = "AudioSet"
    if task["esc50_eval"]:
        corpus = "ESC-50"
    elif task["spcv2_eval"]:
        corpus = "Speech Commands V2"
    mean, std = NORMALIZATION[corpus]
    return {"mean": mean, "std": std, "num_frames": task["target_length"]}


def our_name(official: str) -> str | None:
    """Name of an official student parameter here; None for what has no counterpart."""
    for theirs, ours in NAMES.items():
        if official.startswith(theirs):
            name = ours + official.removeprefix(theirs)
            if name.startswith("decoder.convolutions."):
                # The official layer is a sequence whose first element convolves.
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            return name
    return None


def _read_safely(path: str | Path) -> Mapping:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    # A damaged pickle raises anything, and torch's own words advise unsafe loading.
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}); it is "
            "damaged, or holds pickled objects, which are never loaded here"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f"{path}: holds {type(checkpoint).__name__}, not a mapping"
        )
    return checkpoint


def _convert_pretraining(
    official: Mapping, settings: Mapping, path: str | Path
) -> tuple[dict, dict[str, Tensor]]:
    decoder = settings["modalities"]["image"]["decoder"]
    state = _prefixed("student.", student_state(official, path))
    state |= _prefixed("teacher.", student_state(official["_ema"], path))
    config = {
        "kind": "pretraining",
        "encoder": _encoder_config(official, settings),
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
    inner = {
        name.removeprefix("model."): tensor
        for name, tensor in official.items()
        if name.startswith("model.")
    }
    state = student_state(inner, path)
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = official[f"fc_norm.{part}"]
        state[f"head.{part}"] = official[f"head.{part}"]
    poolings = {
        "CLS_TOKEN": "cls",
        "MEAN_POOLING": "mean",
        "LIN_SOFTMAX": "linear_softmax",
    }
    pretraining = settings["pretrained_model_args"]["model"]
    config = {
        "kind": "classifier",
        "encoder": _encoder_config(inner, pretraining),
        "num_classes": len(official["head.weight"]),
        "pooling": poolings[str(settings["prediction_mode"]).split(".")[-1]],
    }
    return config, state


def _encoder_config(official: Mapping, settings: Mapping) -> dict:
    rows = official[POSITIONS].shape[1]
    return {
        "dim": settings["embed_dim"],
        "depth": settings["depth"],
        "num_heads": settings["num_heads"],
        "max_frames": rows // FREQUENCY_PATCHES * PATCH,
        "num_mels": FREQUENCY_PATCHES * PATCH,
        "position_scale": 1.0,
    }


def student_state(official: Mapping, path: str | Path) -> dict[str, Tensor]:
    """The student's weights under our names.

    Raises
    ------
    CheckpointError
        If its positions are not the fixed ones.
    """
    _check_positions(official[POSITIONS][0].float(), path)
    return {
        our_name(name): tensor.float()
        for name, tensor in official.items()
        if our_name(name)
    }


def _check_positions(positions: Tensor, path: str | Path) -> None:
    """Positions are recomputed here, so the file's must be the fixed ones."""
    rows, dim = positions.shape
    ours = sincos_positions(dim, (rows // FREQUENCY_PATCHES, FREQUENCY_PATCHES))
    if (ours - positions).abs().max() > 2e-3:  # fp16 files are off by up to 5e-4
        raise CheckpointError(
            f"{path}: its positions are not EAT's fixed sine-cosine ones "
            "(was it made with a modified position encoder?)"
        )


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}
