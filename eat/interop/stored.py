"""Weights in a file: their shapes are compared first, then they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from eat.errors import CheckpointError

MAX_WEIGHT = 1e18  # a larger one is a flipped bit: its square overflows
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Parts of a name that wrappers of modules add: DDP, torch.compile, FSDP, checkpointing.
WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}


class StoredTensor(NamedTuple):
    """A tensor in a file.

    Attributes
    ----------
    shape, dtype
        As the file's header says.
    load
        Reads it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    load: Callable[[], Tensor]


def without_wrappers(
    stored: Mapping[str, StoredTensor], path: str | Path
) -> dict[str, StoredTensor]:
    """Remove what DDP, ``torch.compile`` and others add to the names of weights."""
    result: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in result:
            raise CheckpointError(
                f"{path}: contains two weights '{short}' (one of a wrapped module; "
                "save the state of a single module)"
            )
        result[short] = tensor
    return result


def read_floats(
    stored: Mapping[str, StoredTensor], path: str | Path
) -> dict[str, Tensor]:
    """Read weights in fp32.

    Raises `CheckpointError` if one is not floating-point, or not finite and below
    `MAX_WEIGHT` everywhere.
    """
    for name, tensor in stored.items():
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{path}: the weight '{name}' is of type {kind}, a model's are "
                "float32, float16, bfloat16 or float64 (save it before quantization)"
            )
    with ThreadPoolExecutor() as pool:
        values = pool.map(lambda tensor: tensor.load().float(), stored.values())
        state = dict(zip(stored, values, strict=True))
        usable = pool.map(_is_usable, state.values())
        spoiled = [name for name, found in zip(state, usable, strict=True) if not found]
    if spoiled:
        first = state[spoiled[0]]
        count = int((~(first.abs() < MAX_WEIGHT)).sum())
        more = f", and {len(spoiled) - 1} more weights" if len(spoiled) > 1 else ""
        raise CheckpointError(
            f"{path}: the weight '{spoiled[0]}' has {count} of {first.numel()} values "
            f"that are NaN, infinite or absurd{more} (the training diverged, or the "
            "file is corrupt; use an earlier checkpoint)"
        )
    return state


def _is_usable(values: Tensor) -> bool:
    # One pass, and NaN is the minimum and maximum of all.
    return not values.numel() or all(
        bound.abs() < MAX_WEIGHT for bound in values.aminmax()
    )
