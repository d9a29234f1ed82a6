"""Write a checkpoint as a fairseq ``.pt`` file, which the official code loads.

A file has the entries, names, shapes and types of the official ones, except the state
of the optimizer. It contains tensors and plain containers only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.fairseq import NORMALIZATION, OWN_CONFIG
from eat.interop.fairseq_cfg import classifier_cfg, pretraining_cfg
from eat.interop.fairseq_weights import (
    FREQUENCY_PATCHES,
    HEAD,
    POSITIONS,
    official_name,
)
from eat.interop.loading import Checkpoint
from eat.model.encoder import EATEncoder
from eat.model.patching import PATCH
from eat.utils.files import atomic_path

logger = logging.getLogger(__name__)


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
        If the checkpoint cannot be read, the official code has no such model, or `out`
        exists.
    """
    out = Path(out)
    if os.path.lexists(out):
        raise CheckpointError(f"{out}: already exists (choose another name)")
    checkpoint = Checkpoint.read(source)
    _check(checkpoint)
    content = _content(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Given a path, torch would write the temporary name into the file.
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
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
    if config.get("teacher", {}).get("center_momentum") is not None:
        logger.warning(
            "%s: the teacher's center is left out: the official code does not center "
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
