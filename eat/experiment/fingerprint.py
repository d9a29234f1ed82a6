"""What a checkpoint belongs to: settings and clips that decide a run's numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch.utils.data import Dataset

from eat.data.dataset import ClipDataset
from eat.experiment.config import plain_settings

# Settings that may change between the parts of one run without changing its numbers.
FREE_SETTINGS = {
    "data_folder",
    "manifest_folder",
    "num_workers",
    "log_interval",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "keep_checkpoints",
    "keep_epoch_models",
    "keep_every_epochs",
    "max_unreadable_share",
    "grad_accumulation_factor",  # but not the clips of a step, see ResumableBrain
}


def relevant_settings(settings: Mapping[str, object], folder: str) -> dict[str, object]:
    """The settings that must not change within a run.

    Paths below its folder begin with a dot: it may move, or be spelled differently.
    """
    kept = {k: v for k, v in settings.items() if k not in FREE_SETTINGS}
    return _relative(kept, folder)


def identity(output_folder: str, train: Dataset) -> dict[str, object]:
    """All that a run's numbers depend on, as plain values: settings and clips."""
    found = relevant_settings(plain_settings(output_folder), output_folder)
    found["training clips"] = len(train)
    if isinstance(train, ClipDataset):
        found["SHA-256 of their names and labels"] = train.fingerprint()
    return found


def differences(
    earlier: Mapping[str, object], now: Mapping[str, object], shown: int = 3
) -> str:
    """What differs, such as ``lr was 0.1, now 0.2``; empty where nothing does."""
    keys = [
        k for k in sorted(earlier.keys() | now.keys()) if earlier.get(k) != now.get(k)
    ]
    # Nested objects repeat the plain settings that they refer to.
    plain = [k for k in keys if not isinstance(now.get(k), dict | list)]
    return ", ".join(
        f"{k} was {_short(earlier.get(k))}, now {_short(now.get(k))}"
        for k in (plain or keys)[:shown]
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 64 else f"{text[:12]}..."


def _relative(value: object, folder: str) -> object:
    """A copy of plain settings in which paths below the folder begin with a dot."""
    if isinstance(value, dict):
        return {key: _relative(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, folder) for item in value]
    if isinstance(value, str) and f"{value}/".startswith(f"{folder}/"):
        return os.path.normpath(f"./{value.removeprefix(folder)}")
    return value
