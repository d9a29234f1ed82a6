"""Our model folder: ``config.json`` and ``model.safetensors``, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eat.errors import CheckpointError
from eat.utils.files import atomic_path, write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

# Names in folders written by version 0.1 -> names since; :func:`read_model` translates.
RENAMED_TEACHER_OPTIONS = {"centre_momentum": "center_momentum"}
RENAMED_WEIGHTS = {"teacher.centre": "teacher.center"}


def save_model(folder: str | Path, config: Mapping[str, Any], model: nn.Module) -> None:
    """Write a model folder; each file is replaced only once it is complete.

    The config is what :mod:`eat.interop.loading` needs to build the model again. Raises
    `CheckpointError` if the weights cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    try:
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(state, temporary, metadata={"format": "pt"})
    except SafetensorError as error:  # for instance if the disk is full
        raise CheckpointError(
            f"{folder / WEIGHTS}: cannot be written, {error} (free some space and "
            "re-run the same command to resume)"
        ) from error
    write_json(folder / CONFIG, config)


def read_model(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config and state of a model folder; `CheckpointError` if it is corrupt."""
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: contains no {name} (give a model folder, such as RUN/model "
                "of a finished run, or an official .pt file)"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: corrupt model folder ({error})") from error
    if not isinstance(config, dict) or "kind" not in config:
        raise CheckpointError(
            f"{folder}: {CONFIG} has no 'kind' (not a model folder of this toolkit)"
        )
    if "teacher" in config:
        config["teacher"] = _rename(config["teacher"], RENAMED_TEACHER_OPTIONS)
    return config, _rename(state, RENAMED_WEIGHTS)


def _rename(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Load a state that must fit the module exactly.

    Otherwise raises `CheckpointError`, which names the first weights that are missing,
    unexpected or of another shape.
    """
    own = module.state_dict()
    problems = [f"{name} missing" for name in own if name not in state]
    problems += [f"{name} unexpected" for name in state if name not in own]
    problems += [
        f"{name} is {list(state[name].shape)}, the model's {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source}: weights of another model: {'; '.join(problems[:3])}{more} "
            "(use the same preset and options as in training)"
        )
    module.load_state_dict(state)
