"""Per-class reports: average precision of each class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

HEADER = f"{'Class':<50} AP"


def write_class_ap(path: str | Path, names: Sequence[str], ap: Sequence[float]) -> None:
    """Write one line a class, in the order of the classifier's outputs.

    Parameters
    ----------
    path
        The file to write.
    names
        The classes' names.
    ap
        Their average precision; NaN for a class without positives.
    """
    lines = [f"{name:<50} {value:.4f}" for name, value in zip(names, ap, strict=True)]
    Path(path).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def read_class_ap(path: str | Path) -> dict[str, float]:
    """Read such a file, ours or official.

    Returns
    -------
    dict
        Average precision by class name, in the file's order.

    Raises
    ------
    ValueError
        If it is no text, or a line is not a name and a number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text file") from None
    header, *lines = text.splitlines() or [""]
    if header.split() != HEADER.split():
        raise ValueError(f"{path}: its first line is not 'Class ... AP'")
    found = {}
    for number, line in enumerate(lines, 2):
        name, _, value = line.rstrip().rpartition(" ")
        try:
            found[name.rstrip()] = float(value)
        except ValueError:
            raise ValueError(
                f"{path}: line {number} is '{line}', not a class and a number"
            ) from None
    return found


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Count clips by class and answer.

    Parameters
    ----------
    logits
        `[M, C]`; the answer is the class with the highest.
    labels
        `[M, C]` one-hot.

    Returns
    -------
    Tensor
        `[C, C]` int64; row: the true class, column: the answer.
    """
    classes = labels.shape[1]
    pairs = labels.argmax(dim=1) * classes + logits.argmax(dim=1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def write_confusion(
    path: str | Path, names: Sequence[str], logits: Tensor, labels: Tensor
) -> None:
    """Write the counts as CSV, a row for each true class, a column for each answer."""
    counts = confusion(logits, labels)
    table = pd.DataFrame(counts.numpy(), index=list(names), columns=list(names))
    table.to_csv(path, index_label="true class \\ answer")
