"""Our model folder: ``config.json`` and ``model.safetensors``, loaded strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eat.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def save_model(folder: str | Path, config: Mapping, model: nn.Module) -> None:
    """Write a model folder, replacing each file only once it is complete.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    config
        What :mod:`eat.interop.loading` needs to build the model again.
    model
        The module whose state is written.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()
    }
    partial = folder / f".{WEIGHTS}.partial"
    try:
        save_file(state, partial, metadata={"format": "pt"})
    except SafetensorError as error:  # also where the disk is full
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{folder / WEIGHTS}: cannot be written, {error} (free space or mend the "
            "disk; the same command goes on)"
        ) from error
    os.replace(partial, folder / WEIGHTS)
    partial = folder / f".{CONFIG}.partial"
    partial.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / CONFIG)


def read_model(folder: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Read the config and the state of a model folder.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: no {name} in it (give a model folder, RUN/model of a "
                "finished run, or an official .pt file)"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged model folder ({error})") from error
    if not isinstance(config, dict) or "kind" not in config:
        raise CheckpointError(f"{folder}: {CONFIG} names no kind of model of ours")
    return config, state


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Load a state which must fit the module exactly.

    Raises
    ------
    CheckpointError
        Naming the first keys that are missing, unexpected or of another shape.
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
            "(use the same preset and options as when it was made)"
        )
    module.load_state_dict(state)
