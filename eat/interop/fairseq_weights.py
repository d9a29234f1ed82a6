"""Weights of the official code: their names and ours, and the fixed positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from eat.errors import CheckpointError
from eat.interop.config_schema import MAX_PATCHES
from eat.interop.stored import StoredTensor, read_floats
from eat.model.patching import PATCH, sincos_positions

FREQUENCY_PATCHES = 8
MODALITY = "modality_encoders.IMAGE."
POSITIONS = MODALITY + "fixed_positional_encoder.positions"

# Prefix of an official name -> prefix of ours.
NAMES = {
    MODALITY + "extra_tokens": "encoder.cls_token",
    MODALITY + "local_encoder.proj.": "encoder.patch_embedding.proj.",
    MODALITY + "context_encoder.norm.": "encoder.norm.",
    MODALITY + "decoder.blocks.": "decoder.convolutions.",
    MODALITY + "decoder.proj.": "decoder.proj.",
    "blocks.": "encoder.blocks.",
}

HEAD = {"fc_norm.": "norm.", "head.": "head."}  # of a classifier

# Weights of pre-training which only settings add that are refused.
OBJECTIVE_WEIGHTS = ("recon_proj.", "cls_proj.", "center", "shared_decoder.")


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


def official_name(ours: str) -> str:
    """Return the official name of a parameter of the student or of a classifier."""
    for theirs, prefix in NAMES.items():
        if ours.startswith(prefix):
            name = theirs + ours.removeprefix(prefix)
            return re.sub(r"(decoder\.blocks\.\d+)\.", r"\1.0.", name)
    for theirs, prefix in HEAD.items():
        if ours.startswith(prefix):
            return theirs + ours.removeprefix(prefix)
    return ours


def split_head(
    official: Mapping[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """Return a classifier's encoder weights, and those of its head by our names."""
    encoder, head = {}, {}
    for name, tensor in official.items():
        prefix = name.partition(".")[0] + "."
        if prefix in HEAD:
            head[HEAD[prefix] + name.removeprefix(prefix)] = tensor
        else:
            encoder[name.removeprefix("model.")] = tensor
    return encoder, head


def student_state(
    official: Mapping[str, StoredTensor], path: str | Path
) -> dict[str, StoredTensor]:
    """Return the student's weights under our names.

    Raises `CheckpointError` if a weight is not known, or if the positions are not the
    fixed sine-cosine ones.
    """
    _check_positions(official, path)
    state = {name: tensor for k, tensor in official.items() if (name := our_name(k))}
    unknown = [
        name
        for name in official
        if not our_name(name)
        and name != POSITIONS
        and not name.startswith(OBJECTIVE_WEIGHTS)
    ]
    if unknown:
        raise CheckpointError(
            f"{path}: the weight '{min(unknown)}' is not known (a modified or "
            "newer EAT? please report it)"
        )
    return state


def encoder_config(
    official: Mapping[str, StoredTensor], dim: int, depth: int, num_heads: int
) -> dict[str, Any]:
    """Return the encoder's config; the number of positions is that of the weights."""
    return {
        "dim": dim,
        "depth": depth,
        "num_heads": num_heads,
        "max_frames": official[POSITIONS].shape[1] // FREQUENCY_PATCHES * PATCH,
        "num_mels": FREQUENCY_PATCHES * PATCH,
        "position_scale": position_scale(official),
    }


def _check_positions(official: Mapping[str, StoredTensor], path: str | Path) -> None:
    """Refuse positions `[1, N, D]` that are not the fixed ones, which we recompute."""
    shape = official[POSITIONS].shape
    dim = official[MODALITY + "extra_tokens"].shape[-1]
    if len(shape) != 3 or shape[0] != 1 or shape[1] % FREQUENCY_PATCHES:
        _other_positions(path)
    if shape[2] != dim or dim % 4 or not 0 < shape[1] <= MAX_PATCHES:
        _other_positions(path)
    positions = read_floats({POSITIONS: official[POSITIONS]}, path)[POSITIONS][0]
    grid = (len(positions) // FREQUENCY_PATCHES, FREQUENCY_PATCHES)
    scale = position_scale(official)
    difference = sincos_positions(dim, grid) * scale - positions
    if difference.abs().max() > 2e-3 * abs(scale):
        _other_positions(path)  # fp16 files are off by up to 5e-4


def position_scale(official: Mapping[str, StoredTensor]) -> float:
    """Return the factor of the positions: the first cosine, that of 0, is 1."""
    positions = official[POSITIONS].load()[0]
    return round(float(positions[0, positions.shape[1] // 4]), 6)


def _other_positions(path: str | Path) -> NoReturn:
    raise CheckpointError(
        f"{path}: its positions are not EAT's fixed sine-cosine ones (was it trained "
        "with a modified position encoder?)"
    )
