"""The authors' Hugging Face folders, read without running their code.

Such a folder (``worstchan/EAT-base_epoch30_pretrain``, say) contains the student's
encoder and, if fine-tuned, its head. A weight's name is that in the fairseq file with
the prefix ``model.`` instead of the modality's, and ``pre_norm`` for the norm before
the blocks. A folder with any other weight is refused: none is silently ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.fairseq import (
    MODALITY,
    NORMALIZATION,
    POSITIONS,
    encoder_config,
    our_name,
    student_state,
)
from eat.interop.pretrained import CONFIG, WEIGHTS

MODALITY_PARTS = ("extra_tokens", "local_encoder.", "fixed_positional_encoder.")
HEAD = {"fc_norm.": "norm.", "head.": "head."}
HEAD_DIM = 64  # width of an attention head: base has 12 of them, large 16


def is_hugging_face(folder: str | Path) -> bool:
    """Return whether a folder's config is one of the transformers library."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "architectures" in config


def read_hugging_face(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read such a folder as a config and a state in our terms.

    Returns what :func:`eat.interop.pretrained.read_model` returns for our folders; the
    kind of a pre-trained model is ``encoder``, since its decoder is missing. Raises
    `CheckpointError` if the weights are missing, corrupt or not those of an EAT model.
    """
    path = Path(folder) / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    official = {_official_name(name): tensor for name, tensor in weights.items()}
    head = _split_head(official)
    try:
        state = student_state(official, path) | head
        encoder = _encoder_config(official)
        config: dict[str, Any] = {"kind": "encoder", "encoder": encoder}
    except KeyError as error:
        raise CheckpointError(f"{path}: has no {error} (not an EAT model)") from error
    unknown = [name for name in official if name != POSITIONS and not our_name(name)]
    if unknown:
        raise CheckpointError(
            f"{path}: the weight '{min(unknown)}' is not known (a newer version of the "
            "model? please report it)"
        )
    mean, std = NORMALIZATION["AudioSet"]
    config["frontend"] = {"mean": mean, "std": std, "num_frames": 1024}
    if "head.weight" in head:
        num_classes = len(head["head.weight"])
        config |= {"kind": "classifier", "num_classes": num_classes, "pooling": "cls"}
    return config, state


def _official_name(name: str) -> str:
    """Return a weight's name in the fairseq file."""
    name = name.removeprefix("model.")
    if name.startswith("pre_norm."):
        return f"{MODALITY}context_encoder.norm.{name.removeprefix('pre_norm.')}"
    return MODALITY + name if name.startswith(MODALITY_PARTS) else name


def _split_head(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the head's weights from the others; return them under our names."""
    return {
        ours + name.removeprefix(theirs): official.pop(name).float()
        for theirs, ours in HEAD.items()
        for name in [*official]
        if name.startswith(theirs)
    }


def _encoder_config(official: Mapping[str, Tensor]) -> dict:
    """Infer the sizes from the weights themselves."""
    dim = official[MODALITY + "extra_tokens"].shape[-1]
    blocks = {name.split(".")[1] for name in official if name.startswith("blocks.")}
    return encoder_config(official, dim, len(blocks), max(1, dim // HEAD_DIM))
