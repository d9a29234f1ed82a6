"""Which class was taken for which, as a table for a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor


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
