"""Folders with ``config.json`` and weights in one or several safetensors files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eat.errors import CheckpointError
from eat.interop.file_kinds import (
    CONFIG,
    INDEX,
    WEIGHTS,
    cannot_be_read,
    open_regular,
    what_folder,
    what_is,
)
from eat.interop.stored import StoredTensor, without_wrappers

SHARD = re.compile(r"[\w.+-]+\.safetensors")  # no path
MAX_JSON = 2**24  # bytes; 100,000 labels are some 3 MB
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read ``config.json``; raises `CheckpointError` unless it is a JSON object."""
    folder = Path(folder)
    if not os.path.lexists(folder / CONFIG):
        try:
            raise CheckpointError(f"{folder}: {what_folder(folder)}")
        except OSError as error:
            raise cannot_be_read(folder, error) from error
    return read_json_object(folder / CONFIG)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object whose keys occur once and whose numbers are finite."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_JSON + 1)
    except OSError as error:
        raise cannot_be_read(path, error) from error
    if len(content) > MAX_JSON:
        raise CheckpointError(f"{path}: larger than {MAX_JSON >> 20} MB (not a config)")
    try:
        value = json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
        )
    except (ValueError, RecursionError) as error:
        reason = (
            "encoded as UTF-16"
            if b"\0" in content[:4]
            else " ".join(str(error).split())
        )
        kind = what_is(path, content[:512])
        if kind is None or kind.startswith("a text"):
            kind = f"malformed, not a JSON object in UTF-8 ({reason[:200]})"
        raise CheckpointError(f"{path}: {kind}") from error
    if not isinstance(value, dict):
        expected = " with a 'kind'" if path.name == CONFIG else ""
        raise CheckpointError(
            f"{path}: malformed, a JSON {type(value).__name__} instead of an object"
            f"{expected}"
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!a} occurs twice")
    return result


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def open_weights(folder: str | Path) -> dict[str, StoredTensor]:
    """Read the headers of a folder's weights, of all files if they are several.

    Raises `CheckpointError` if a file is missing, unreadable, or not safetensors.
    """
    folder = Path(folder)
    whole = os.path.lexists(folder / WEIGHTS)
    if whole or not os.path.lexists(folder / INDEX):
        if not whole:
            raise CheckpointError(_no_weights(folder))
        return without_wrappers(_open_file(folder / WEIGHTS), folder / WEIGHTS)
    listed = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{folder / INDEX}: malformed, has no 'weight_map'")
    stored: dict[str, StoredTensor] = {}
    for name in dict.fromkeys(_file_names(listed, folder / INDEX)):
        part = folder / name
        if not part.exists():
            raise CheckpointError(
                f"{part}: no such file, but {INDEX} names it (download all files)"
            )
        tensors = _open_file(part)
        if twice := stored.keys() & tensors.keys():
            raise CheckpointError(f"{part}: '{min(twice)}' is also in another file")
        stored |= tensors
    if missing := listed.keys() - stored.keys():
        raise CheckpointError(
            f"{folder / INDEX}: names the weight '{min(missing)}', which no file has "
            "(download all files again)"
        )
    return without_wrappers(stored, folder / INDEX)


def _file_names(listed: dict[str, Any], index: Path) -> Iterator[str]:
    for name in listed.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{index}: {ascii(name)[:80]} is not the name of a file in this folder "
                "(hostile or malformed; download the model from its authors)"
            )
        yield name


def _no_weights(folder: Path) -> str:
    kind = what_folder(folder)
    if WEIGHTS not in kind:
        kind = f"contains no {WEIGHTS}; {kind}"
    return f"{folder}: {kind}"


def _open_file(path: Path) -> dict[str, StoredTensor]:
    try:
        with open_regular(path) as file:
            head = file.read(512)
        if head[8:9] != b"{":
            kind = what_is(path, head) or "malformed, not a safetensors file"
            raise CheckpointError(f"{path}: {kind}")
        opened = safe_open(path, framework="pt")
        stored = {}
        for name in opened.keys():  # noqa: SIM118 (not a mapping)
            header = opened.get_slice(name)
            dtype = header.get_dtype()
            stored[name] = StoredTensor(
                tuple(header.get_shape()),
                DTYPES.get(dtype, dtype),
                partial(_read, opened, name),
            )
        return stored
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except SafetensorError as error:
        reason = ascii(" ".join(str(error).split()))[1:-1]
        raise CheckpointError(
            f"{path}: malformed or truncated ({reason[:120]}; download it again)"
        ) from error


def _read(opened: safe_open, name: str) -> Tensor:
    """Read a tensor into memory: what is mapped changes with the file."""
    return opened.get_tensor(name).clone()
