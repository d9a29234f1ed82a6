"""Evaluation of a classifier: its metric, and a per-class report of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from eat.errors import ManifestError
from eat.evaluation.metrics import accuracy, average_precision
from eat.utils.files import atomic_open
from eat.utils.text import Line, clean, read_lines

HEADER = f"{'Class':<50} AP"


def write_class_ap(path: str | Path, names: Sequence[str], ap: Sequence[float]) -> None:
    """Write the average precision of each class, as the official ``results/*.txt``."""
    lines = [f"{name:<50} {value:.4f}" for name, value in zip(names, ap, strict=True)]
    Path(path).write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def read_class_ap(path: str | Path) -> dict[str, float]:
    """Read such a file: average precision by class name, in its order.

    Raises `ManifestError` if it cannot be read or a line is not a name and a number.
    """
    (_, header), *lines = read_lines(path) or [Line(1, "")]
    if header.split() != HEADER.split():
        raise ManifestError(
            f"{path}: the first line is not 'Class ... AP' (give a class_ap.txt)"
        )
    found: dict[str, float] = {}
    for number, line in lines:
        name, _, value = line.replace("\t", " ").rpartition(" ")
        try:
            score = float(value)
        except ValueError:
            raise ManifestError(
                f"{path}: line {number} is not a class and a number: '{line}' (give a "
                "class_ap.txt)"
            ) from None
        if found.setdefault(clean(name), score) is not score:
            raise ManifestError(
                f"{path}: line {number}: '{clean(name)}' occurs twice (keep one line)"
            )
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
    with atomic_open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true class \\ predicted class", *names])
        for name, counts in zip(names, confusion(logits, labels).tolist(), strict=True):
            writer.writerow([name, *counts])


class Evaluation(Protocol):
    """How a corpus's classifier is evaluated; logits and labels are `[M, C]`."""

    metric: str  # the name of the metric to select the best epoch by
    multi_label: bool  # whether scores are sigmoids of logits; otherwise their softmax

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the metrics of all clips."""

    def write_report(
        self, folder: Path, names: Sequence[str], logits: Tensor, labels: Tensor
    ) -> None:
        """Write a per-class report to a folder; `names` are those of the classes."""


class MultiLabelEvaluation:
    """Mean average precision: each clip has any number of labels.

    Ranked by logits: in fp32, the sigmoid of all logits above 17 is 1.
    """

    metric = "mAP"
    multi_label = True

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the mean average precision over the classes that occur."""
        per_class = average_precision(logits, labels)
        return {"mAP": per_class.nanmean().item()}

    def write_report(
        self, folder: Path, names: Sequence[str], logits: Tensor, labels: Tensor
    ) -> None:
        """Write the average precision of each class to ``class_ap.txt``."""
        per_class = average_precision(logits, labels)
        write_class_ap(folder / "class_ap.txt", names, per_class.tolist())


class SingleLabelEvaluation:
    """Accuracy: each clip has one label, one-hot in `[M, C]`."""

    metric = "accuracy"
    multi_label = False

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the share of clips whose class has the highest logit."""
        return {"accuracy": accuracy(logits, labels.argmax(dim=1))}

    def write_report(
        self, folder: Path, names: Sequence[str], logits: Tensor, labels: Tensor
    ) -> None:
        """Write the confusion matrix to ``confusion.csv``."""
        write_confusion(folder / "confusion.csv", names, logits, labels)
