"""Names of weights: those of the official code and ours."""

from __future__ import annotations

import re

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

HEAD = {"fc_norm": "norm", "head": "head"}  # of a classifier


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
    head, _, part = ours.partition(".")
    return {ours: f"{theirs}.{part}" for theirs, ours in HEAD.items()}.get(head, ours)
