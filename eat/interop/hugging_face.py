"""The authors' Hugging Face folders, read without their remote code.

Such a folder (``worstchan/EAT-base_epoch30_pretrain``, say) holds the student's encoder
and, where fine-tuned, its head. A weight's name is that in the fairseq file with
``model.`` in front in place of the modality, and ``pre_norm`` for the norm before the
blocks. Any other name is refused, so nothing is lost unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.fairseq import (
    FREQUENCY_PATCHES,
    MODALITY,
    NORMALIZATION,
    POSITIONS,
    our_name,
    student_state,
)
from eat.interop.pretrained import CONFIG, WEIGHTS
from eat.model.patching import PATCH

OF_THE_MODALITY = ("extra_tokens", "local_encoder.", "fixed_positional_encoder.")
HEAD = {"fc_norm.": "norm.", "head.": "head."}
HEAD_WIDTH = 64  # of attention: base has 12 heads of it, large 16


def is_hugging_face(folder: str | Path) -> bool:
    """Whether a folder's config is one of the transformers library."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "architectures" in config


def read_hugging_face(folder: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Read such a folder as a config and a state in our terms.

    Returns
    -------
    tuple
        As :func:`eat.interop.pretrained.read_model` gives for a folder of ours; a
        pre-trained model has the kind ``encoder``, as it comes without its decoder.

    Raises
    ------
    CheckpointError
        If the weights are missing, damaged or not an EAT's.
    """
    path = Path(folder) / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    official = {_official_name(name): tensor for name, tensor in weights.items()}
    state = {name: official.pop(name).float() for name in _head_names(official)}
    head = {_our_head_name(name): tensor for name, tensor in state.items()}
    try:
        encoder = student_state(official, path)
        config = {"kind": "encoder", "encoder": _encoder_config(official)}
    except KeyError as error:
        raise CheckpointError(f"{path}: no {error} in it (not an EAT's)") from error
    mean, std = NORMALIZATION["AudioSet"]
    config["frontend"] = {"mean": mean, "std": std, "num_frames": 1024}
    unknown = official.keys() - {POSITIONS} - _used(official)
    if unknown:
        raise CheckpointError(
            f"{path}: holds '{min(unknown)}', which has no counterpart here (is it "
            "another version's? please report it)"
        )
    if "head.weight" in head:
        classes = len(head["head.weight"])
        config |= {"kind": "classifier", "num_classes": classes, "pooling": "cls"}
    return config, encoder | head


def _official_name(name: str) -> str:
    """A weight's name in the fairseq file."""
    name = name.removeprefix("model.")
    if name.startswith("pre_norm."):
        return f"{MODALITY}context_encoder.norm.{name.removeprefix('pre_norm.')}"
    return MODALITY + name if name.startswith(OF_THE_MODALITY) else name


def _head_names(official: Mapping[str, Tensor]) -> list[str]:
    return [name for name in official if name.startswith(tuple(HEAD))]


def _our_head_name(name: str) -> str:
    theirs = next(part for part in HEAD if name.startswith(part))
    return HEAD[theirs] + name.removeprefix(theirs)


def _used(official: Mapping[str, Tensor]) -> set[str]:
    return {name for name in official if our_name(name)}


def _encoder_config(official: Mapping[str, Tensor]) -> dict:
    """Sizes, from the weights themselves."""
    dim = official[MODALITY + "extra_tokens"].shape[-1]
    blocks = {name.split(".")[1] for name in official if name.startswith("blocks.")}
    return {
        "dim": dim,
        "depth": len(blocks),
        "num_heads": max(1, dim // HEAD_WIDTH),
        "max_frames": official[POSITIONS].shape[1] // FREQUENCY_PATCHES * PATCH,
        "num_mels": FREQUENCY_PATCHES * PATCH,
        "position_scale": 1.0,
    }
