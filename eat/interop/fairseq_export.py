"""Write a checkpoint as a fairseq ``.pt`` file, which the official code loads.

A file has the entries, names, shapes and types of the official ones, except the state
of the optimizer. It contains tensors and plain containers only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.fairseq import NORMALIZATION, OWN_CONFIG
from eat.interop.fairseq_settings import (
    CLASSIFIER,
    CLIPS,
    CLONES,
    ENCODER,
    IGNORED,
    MASKS,
    OBJECTIVE,
    POOLINGS,
    written_values,
)
from eat.interop.fairseq_weights import (
    FREQUENCY_PATCHES,
    HEAD,
    POSITIONS,
    official_name,
)
from eat.interop.loading import Checkpoint
from eat.model.encoder import EATEncoder
from eat.model.patching import PATCH
from eat.utils.files import new_path

logger = logging.getLogger(__name__)

TASK: dict[str, Any] = {
    "_name": "mae_image_pretraining",
    "data": "",
    **dict.fromkeys(("multi_data", "local_cache_path"), None),
    **dict.fromkeys(("beit_transforms", "target_transform", "no_transform"), False),
    **dict.fromkeys(("h5_format", "flexible_mask", "AS2M_finetune"), False),
    **dict.fromkeys(("spcv1_finetune", "roll_aug", "noise", "is_finetuning"), False),
    **dict.fromkeys(("rebuild_batches", "audio_mae", "downsr_16hz"), True),
    "input_size": 224,
    "key": "source",
    "precompute_mask_config": {
        **MASKS,
        **dict.fromkeys(("expand_adjacent", "non_overlapping"), False),
        "clone_batch": CLONES,
    },
    "subsample": 1.0,
    "seed": 1,
    "dataset_type": "imagefolder",
    "weights_file": "",
    "num_samples": 200_000,
}


def export_fairseq(source: str | Path, out: str | Path) -> None:
    """Write a pre-trained or fine-tuned checkpoint for the official code.

    Parameters
    ----------
    source
        A model folder of this toolkit, or another checkpoint that `load_encoder` reads.
    out
        The file to write.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be read, or the official code has no such model.
    ExperimentError
        If `out` exists or cannot be written.
    """
    checkpoint = Checkpoint.read(source)
    _check(checkpoint)
    content = _content(checkpoint)
    # Given a path, torch would write the temporary name into the file.
    with new_path(out) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # at the end of a file that was not written
            raise error.__context__ or error from None


def _check(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` for a model that the official code does not have."""
    config, path = checkpoint.config, checkpoint.path
    if checkpoint.kind == "encoder":
        raise CheckpointError(
            f"{path}: an encoder without decoder and teacher, which the official code "
            "needs (export a pre-training or fine-tuned checkpoint)"
        )
    if checkpoint.unsupported:
        raise CheckpointError(checkpoint.unsupported)
    num_mels = config["encoder"].get("num_mels", FREQUENCY_PATCHES * PATCH)
    if num_mels != FREQUENCY_PATCHES * PATCH:
        raise CheckpointError(
            f"{path}: encoder.num_mels is {num_mels}, the official code's is "
            f"{FREQUENCY_PATCHES * PATCH} (train with {FREQUENCY_PATCHES * PATCH})"
        )
    if config.get("mask_padding"):
        logger.warning(
            "%s: was fine-tuned with masked padding, which the official code encodes: "
            "scores of clips shorter than the input differ there",
            path,
        )
    if config.get("teacher", {}).get("center_momentum") is not None:
        logger.warning(
            "%s: the teacher's center is omitted: the official code does not center "
            "its targets",
            path,
        )


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the file contains."""
    frontend = checkpoint.frontend().config
    constants = (frontend["mean"], frontend["std"])
    corpus = {
        "target_length": frontend["num_frames"],
        "esc50_eval": constants == NORMALIZATION["ESC-50"],
        "spcv2_eval": constants == NORMALIZATION["Speech Commands V2"],
    }
    encoder = checkpoint.encoder()
    config = {**checkpoint.config, "encoder": encoder.config}
    model: dict[str, Any]
    if checkpoint.kind == "classifier":
        config["multi_label"] = checkpoint.multi_label
        cfg = classifier_cfg(config, corpus)
        model = {
            name if name.startswith(tuple(HEAD)) else f"model.{name}": tensor
            for name, tensor in _official(checkpoint.state(), encoder).items()
        }
    else:
        cfg = pretraining_cfg(config, corpus)
        top_k = config.get("teacher", {}).get("average_top_k")
        config["teacher"] = {"average_top_k": top_k}  # without a center
        teacher = _official(checkpoint.state("teacher."), encoder)
        model = {**_official(checkpoint.state("student."), encoder), "_ema": teacher}
    labels = {name: str(i) for i, name in enumerate(checkpoint.labels or ())}
    history: dict[str, Any] = {
        "criterion_name": "ModelCriterion",
        "optimizer_name": "FairseqCompositeOptimizer",
        "lr_scheduler_state": {},
        "num_updates": config.get("step") or 0,
    }
    iterator = {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True}
    return {
        "args": None,
        "cfg": cfg,
        "model": model,
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {"labels": labels} if labels else {},
        "extra_state": {
            "metrics": {},
            "previous_training_time": 0.0,
            "train_iterator": iterator,
            "val_loss": None,
            OWN_CONFIG: config,
        },
    }


def _official(state: Mapping[str, Tensor], encoder: EATEncoder) -> dict[str, Tensor]:
    """Return weights under their official names, with the fixed positions."""
    official = {
        official_name(name): tensor
        for name, tensor in state.items()
        if name != "center"  # of a teacher
    }
    return {**official, POSITIONS: encoder.positions[None].clone()}


def pretraining_cfg(config: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict:
    """Return the `cfg` of a pre-trained model.

    Parameters
    ----------
    config
        Our config; without a decoder, which the official code builds in any case, that
        has some size.
    corpus
        The settings that depend on the corpus: ``target_length`` and two flags.
    """
    encoder = config["encoder"]
    dim, depth, heads = (encoder[name] for name in ("dim", "depth", "num_heads"))
    any_size = {"dim": dim, "depth": 1, "kernel": 3, "groups": math.gcd(dim, 16)}
    decoder = config.get("decoder", any_size)
    image = {
        "embed_dim": dim,
        "max_length": encoder["max_frames"] // PATCH,
        "target_length": corpus["target_length"],
        "model_depth": depth,
        "num_alibi_heads": heads,
        "mask_noise_std": config.get("student", {}).get("mask_noise_std", 0.01),
        "decoder.decoder_dim": decoder["dim"],
        "decoder.decoder_groups": decoder["groups"],
        "decoder.decoder_kernel": decoder["kernel"],
        "decoder.decoder_layers": decoder["depth"],
    }
    model = written_values(ENCODER | OBJECTIVE | IGNORED) | {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": heads,
        "average_top_k_layers": config.get("teacher", {}).get("average_top_k") or depth,
        "clone_batch": CLONES,
        "cls_loss": config.get("utterance_weight", CLIPS * CLONES) / (CLIPS * CLONES),
        **{f"modalities.image.{name}": value for name, value in image.items()},
    }
    return {
        "_name": None,
        "model": _nest(model),
        "task": {**TASK, **corpus},
        "criterion": {"_name": "model"},
        "lr_scheduler": {"_name": "pass_through"},
    }


def classifier_cfg(config: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict:
    """Return the `cfg` of a fine-tuned model, which contains one of pre-training."""
    pretraining = pretraining_cfg(config, corpus)
    modes = {ours: mode for mode, ours in POOLINGS.items() if isinstance(mode, str)}
    model = written_values(CLASSIFIER) | {
        "num_classes": config["num_classes"],
        "prediction_mode": modes[config["pooling"]],
        "pretrained_model_args": pretraining,
    }
    task = TASK | {
        "_name": "mae_image_classification",
        "key": "imgs",
        "precompute_mask_config": None,
        "label_descriptors": "label_descriptors.csv",
        "labels": "lbl",
    }
    return {
        **pretraining,
        "model": {**model, **corpus},
        "task": {**task, **corpus},
    }


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose names have dots as nested mappings."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        *folders, last = name.split(".")
        inner = result
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return result
