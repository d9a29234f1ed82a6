"""`eat info`: describe a checkpoint without loading its weights."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat.errors import printable

if TYPE_CHECKING:
    from eat.interop.loading import Checkpoint

SHOWN_LABELS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    model = "model folder, official .pt file or Hugging Face folder"
    parser.add_argument("model", metavar="MODEL", help=model)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Print what the headers of the checkpoint's files say."""
    from eat.interop.loading import Checkpoint

    facts = describe(Checkpoint.read(Path(options.model)))
    if options.json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):{width}}{printable(_line(value))}")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known of a checkpoint, as values of JSON."""
    from eat.interop.card import size_name

    config, path = checkpoint.config, Path(checkpoint.path)
    encoder, frontend = config["encoder"], checkpoint.frontend()
    facts: dict[str, Any] = {
        "model": str(path),
        "format": _format(path),
        "kind": checkpoint.kind,
        "size": size_name(encoder),
        "encoder": {key: encoder[key] for key in ("depth", "dim", "num_heads")},
        "parameters": _parameters(checkpoint),
        "input": {
            "sample_rate": 16_000,
            "frames": frontend.num_frames,
            "seconds": frontend.num_frames / 100,
            "mean": frontend.config["mean"],
            "std": frontend.config["std"],
        },
    }
    if checkpoint.kind == "classifier":
        facts["classes"] = {
            "number": config["num_classes"],
            "scores": "sigmoid" if checkpoint.multi_label else "softmax",
            "pooling": config["pooling"],
            "labels": checkpoint.labels,
        }
    facts["optimizer_step"] = config.get("step")
    facts["pretraining"] = checkpoint.unsupported
    facts["stored_as"] = _dtypes(checkpoint)
    files = (
        sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    )
    facts["bytes"] = {file.name: file.stat().st_size for file in files}
    return {name: value for name, value in facts.items() if value is not None}


def _format(path: Path) -> str:
    from eat.interop.folders import read_config

    if path.is_file():
        return "file of the official code (fairseq)"
    if "architectures" in read_config(path):
        return "Hugging Face folder"
    return "model folder of this toolkit"


def _parameters(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the number of stored values: of an encoder, and of everything."""
    sizes = {name: prod(tensor.shape) for name, tensor in checkpoint.stored.items()}
    prefix = "student.encoder." if checkpoint.kind == "pretraining" else "encoder."
    encoder = (size for name, size in sizes.items() if name.startswith(prefix))
    return {"encoder": sum(encoder), "all": sum(sizes.values())}


def _dtypes(checkpoint: Checkpoint) -> str:
    kinds = Counter(str(x.dtype).split(".")[-1] for x in checkpoint.stored.values())
    return ", ".join(kind for kind, _ in kinds.most_common())


def _line(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_line(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, tuple):
        more = f" and {len(value) - SHOWN_LABELS} more"
        shown = "; ".join(value[:SHOWN_LABELS])
        return f"'{shown}'{more if len(value) > SHOWN_LABELS else ''}"
    return f"{value:,}" if isinstance(value, int) else str(value)
