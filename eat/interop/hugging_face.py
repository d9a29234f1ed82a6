"""Hugging Face folders, the authors' and ours, read without running their code.

A folder of the authors (``worstchan/EAT-base_epoch30_pretrain``, say) contains the
student's encoder and, if fine-tuned, its head. A weight's name is that in the fairseq
file with the prefix ``model.`` instead of the modality's, and ``pre_norm`` for the norm
before the blocks. A folder of `eat export hf` contains what ours do, and the positions;
the weights of a classifier have the prefix ``eat.``.

A folder with any other weight is refused: none is silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eat.errors import CheckpointError
from eat.interop.fairseq import NORMALIZATION
from eat.interop.fairseq_weights import (
    MODALITY,
    POSITIONS,
    encoder_config,
    split_head,
    student_state,
)
from eat.interop.file_kinds import what_model
from eat.interop.folders import open_weights, read_json_object
from eat.interop.stored import StoredTensor

MODALITY_PARTS = ("extra_tokens", "local_encoder.", "fixed_positional_encoder.")
# Option of our encoder -> key in the config.json of `eat export hf`.
SIZES = {
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_frames": "max_frames",
    "num_mels": "num_mel_bins",
    "position_scale": "position_scale",
}
PREPROCESSOR = "preprocessor_config.json"
HEAD_DIM = 64  # width of an attention head: base has 12 of them, large 16


def read_hugging_face(
    folder: str | Path, described: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Read such a folder's config, and the place of its weights, in our terms.

    `described` is its ``config.json``. The kind of a pre-trained model is ``encoder``,
    since its decoder is missing. Raises `CheckpointError` if the weights are missing,
    corrupt or not those of an EAT model.
    """
    if "position_scale" in described:
        return _read_exported(folder, described)
    stored = open_weights(folder)
    official = {_official_name(name): tensor for name, tensor in stored.items()}
    if len(official) < len(stored):
        raise CheckpointError(f"{folder}: contains a weight under two names")
    if missing := {POSITIONS, MODALITY + "extra_tokens"} - official.keys():
        kind = {"_name": described.get("model_type")}
        raise CheckpointError(
            f"{folder}: has no '{min(missing)}' ({what_model(stored, kind)})"
        )
    official, head = split_head(official)
    state = student_state(official, folder) | head
    config: dict[str, Any] = {"kind": "encoder", "encoder": _encoder_config(official)}
    mean, std = NORMALIZATION["AudioSet"]
    config["frontend"] = {"mean": mean, "std": std, "num_frames": 1024}
    if "head.weight" in head:
        num_classes = head["head.weight"].shape[0]
        config |= {"kind": "classifier", "num_classes": num_classes, "pooling": "cls"}
    return config, state


def _read_exported(
    folder: str | Path, described: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Read a folder of `eat export hf`, or one that transformers saved from it."""
    weights = open_weights(folder)
    stored = {name.removeprefix("eat."): tensor for name, tensor in weights.items()}
    if len(stored) < len(weights):
        raise CheckpointError(f"{folder}: contains a weight under two names")
    stored.pop("encoder.positions", None)  # recomputed from the config
    sizes = {ours: described.get(theirs) for ours, theirs in SIZES.items()}
    extractor = Path(folder) / PREPROCESSOR
    if not extractor.exists():
        raise CheckpointError(
            f"{extractor}: no such file, which has the normalization of the input "
            "(copy it from the model that was fine-tuned)"
        )
    frontend = read_json_object(extractor)
    keys = {"mean": "mean", "std": "std", "num_frames": "max_length"}
    config: dict[str, Any] = {
        "kind": "encoder",
        "encoder": sizes,
        "frontend": {ours: frontend.get(theirs) for ours, theirs in keys.items()},
    }
    if "head.weight" not in stored:
        return config, stored
    num_classes = stored["head.weight"].shape[0]
    config |= {
        "kind": "classifier",
        "num_classes": num_classes,
        "pooling": described.get("pooling"),
        "multi_label": described.get("problem_type") == "multi_label_classification",
    }
    names = described.get("id2label")
    unnamed = [f"LABEL_{i}" for i in range(num_classes)]  # if none were given
    if isinstance(names, Mapping):
        labels = [names.get(str(i), label) for i, label in enumerate(unnamed)]
        if labels != unnamed:
            config["labels"] = labels
    return config, stored


def _official_name(name: str) -> str:
    """Return a weight's name in the fairseq file."""
    name = name.removeprefix("model.")
    if name.startswith("pre_norm."):
        return f"{MODALITY}context_encoder.norm.{name.removeprefix('pre_norm.')}"
    return MODALITY + name if name.startswith(MODALITY_PARTS) else name


def _encoder_config(official: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Infer the sizes from the weights themselves."""
    dim = official[MODALITY + "extra_tokens"].shape[-1]
    blocks = {name.split(".")[1] for name in official if name.startswith("blocks.")}
    return encoder_config(official, dim, len(blocks), max(1, dim // HEAD_DIM))
