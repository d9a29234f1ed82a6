"""Per-class reports: average precision in the official format, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

HEADER = f"{'Class':<50} AP"


def write_class_ap(path: str | Path, names: Sequence[str], ap: Sequence[float]) -> None:
    """Write the average precision of each class, as the official ``results/*.txt``."""
    lines = [f"{name:<50} {value:.4f}" for name, value in zip(names, ap, strict=True)]
    Path(path).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def read_class_ap(path: str | Path) -> dict[str, float]:
    """Read such a file: average precision by class name, in its order.

    Raises ValueError if it is not text, or a line is not a name and a number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    header, *lines = text.splitlines() or [""]
    if header.split() != HEADER.split():
        raise ValueError(f"{path}: the first line is not 'Class ... AP'")
    found = {}
    for number, line in enumerate(lines, 2):
        name, _, value = line.rstrip().rpartition(" ")
        try:
            found[name.rstrip()] = float(value)
        except ValueError:
            raise ValueError(
                f"{path}: line {number} is not a class and a number: '{line}'"
            ) from None
    return found


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the clips by true (rows) and predicted (columns) class, `[C, C]`.

    Logits and one-hot labels are `[M, C]`.
    """
    classes = labels.shape[1]
    pairs = labels.argmax(dim=1) * classes + logits.argmax(dim=1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def write_confusion(
    path: str | Path, names: Sequence[str], logits: Tensor, labels: Tensor
) -> None:
    """Write the confusion matrix as CSV; rows are true, columns predicted classes."""
    counts = confusion(logits, labels).numpy()
    table = pd.DataFrame(counts, index=list(names), columns=list(names))
    table.to_csv(path, index_label="true class \\ predicted class")
