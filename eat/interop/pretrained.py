"""Our model folder: ``config.json`` and ``model.safetensors``, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from eat.errors import CheckpointError
from eat.interop.config_schema import check_config
from eat.interop.file_kinds import CONFIG, WEIGHTS
from eat.interop.folders import open_weights, read_config
from eat.interop.stored import StoredTensor, read_floats
from eat.utils.files import atomic_path

# Names in folders written by version 0.1 -> names since; :func:`open_model` translates.
RENAMED_TEACHER_OPTIONS = {"centre_momentum": "center_momentum"}
RENAMED_WEIGHTS = {"teacher.centre": "teacher.center"}


def save_model(
    folder: str | Path,
    config: Mapping[str, Any],
    model: nn.Module,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder; what is there is replaced once all files are complete.

    Parameters
    ----------
    folder
        Where to write ``config.json`` and ``model.safetensors``.
    config
        What :mod:`eat.interop.loading` needs to build the model again.
    model
        The module whose weights are written.
    texts
        Further files: their contents by name, see :mod:`eat.interop.card`.

    Raises
    ------
    CheckpointError
        If the files cannot be written.
    """
    folder = Path(folder)
    texts = {**(texts or {}), CONFIG: json.dumps(config, indent=1) + "\n"}
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            weights = files.enter_context(atomic_path(folder / WEIGHTS))
            for name, text in texts.items():
                path = files.enter_context(atomic_path(folder / name))
                path.write_text(text, encoding="utf-8", errors="backslashreplace")
            save_file(state, weights, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:  # for instance if the disk is full
        raise CheckpointError(
            f"{folder / WEIGHTS}: cannot be written, {error} (free some space, or make "
            "the folder writable, and re-run the same command to resume)"
        ) from error


def open_model(
    folder: str | Path, config: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Check a model folder's `config` and read the header of its weights."""
    folder = Path(folder)
    if isinstance(config.get("teacher"), dict):
        config["teacher"] = _rename(config["teacher"], RENAMED_TEACHER_OPTIONS)
    check_config(config, folder / CONFIG)
    return config, _rename(open_weights(folder), RENAMED_WEIGHTS)


def read_model(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config and state of a model folder; `CheckpointError` if it is corrupt."""
    config, stored = open_model(folder, read_config(folder))
    return config, read_floats(stored, folder)


def _rename(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Load a state that must fit the module exactly.

    Otherwise raises `CheckpointError`, which names the first weights that are missing,
    unexpected or of another shape.
    """
    check_fit(module, state, source)
    module.load_state_dict(state)


def check_fit(
    module: nn.Module, state: Mapping[str, Tensor | StoredTensor], source: str | Path
) -> None:
    """Raise `CheckpointError` unless names and shapes are those of the module."""
    own = module.state_dict()
    problems = [f"{name} missing" for name in own if name not in state]
    problems += [f"{name} unexpected" for name in state if name not in own]
    problems += [
        f"{name} is {list(state[name].shape)}, the model's {list(own[name].shape)}"
        for name in own
        if name in state and tuple(state[name].shape) != tuple(own[name].shape)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source}: weights of another model: {'; '.join(problems[:3])}{more} "
            "(use the same preset and options as in training)"
        )
