"""What a checkpoint belongs to: the settings and clips that decide a run's numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eat.experiment.config import read_settings

# Settings that may change when a run is resumed, without changing its numbers.
FREE_SETTINGS = {
    "data_folder",
    "manifest_folder",
    "num_workers",
    "log_interval",
    "tensorboard",
    "wandb",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "keep_checkpoints",
    "keep_epoch_models",
    "keep_every_epochs",
    "max_unreadable_share",
    "grad_accumulation_factor",  # while the clips per step stay, see the Brain
}


def relevant_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that must not change within a run.

    Paths below its ``output_folder`` become relative: the folder may be moved, or be
    spelled differently.
    """
    kept = {k: v for k, v in settings.items() if k not in FREE_SETTINGS}
    return _relative(kept, str(settings.get("output_folder", "")))


def fingerprint(
    output_folder: str | Path, inputs: Mapping[str, object]
) -> dict[str, object]:
    """Return all that a run's numbers depend on, as values that JSON can store.

    These are the settings in its folder and the `inputs`: checksums of what the
    settings refer to.
    """
    values = {**relevant_settings(read_settings(output_folder)), **inputs}
    return json.loads(json.dumps(values, default=str))


def _relative(value: Any, folder: str) -> Any:
    """Return a copy in which paths below the folder are relative to it."""
    if isinstance(value, dict):
        return {key: _relative(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, folder) for item in value]
    if folder and isinstance(value, str) and f"{value}/".startswith(f"{folder}/"):
        return os.path.normpath(f"./{value.removeprefix(folder)}")
    return value
