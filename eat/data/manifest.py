"""Manifests and label lists: CSV files that SpeechBrain and a spreadsheet can read.

A manifest has the columns ``ID, duration, wav, labels``. ``wav`` starts with
``$data_root/``, which SpeechBrain replaces at load time, so that a manifest does not
depend on where the corpus is stored; a file outside the corpus folder is given by its
absolute path. ``labels`` holds label ids joined by ``;``.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eat.errors import ManifestError
from eat.utils.files import atomic_open

COLUMNS = ("ID", "duration", "wav", "labels")
LABEL_COLUMNS = ["index", "mid", "display_name"]


class ManifestRow(NamedTuple):
    """One clip of a manifest."""

    id: str
    seconds: float
    wav: str  # relative to the corpus folder (with forward slashes) or absolute
    labels: tuple[str, ...] = ()  # ids


def write_manifest(path: str | os.PathLike[str], rows: Iterable[ManifestRow]) -> None:
    """Write a manifest atomically."""
    with atomic_open(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            wav = row.wav if os.path.isabs(row.wav) else f"$data_root/{row.wav}"
            writer.writerow((row.id, f"{row.seconds:.4f}", wav, ";".join(row.labels)))


@dataclass(frozen=True)
class LabelSet:
    """The classes of a corpus, in the order of the classifier's outputs."""

    ids: tuple[str, ...]  # as used in manifests, e.g. ``/m/09x0r``
    names: tuple[str, ...]  # for display, e.g. ``Speech``

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label: position for position, label in enumerate(self.ids)}

    def __contains__(self, label: str) -> bool:
        return label in self._positions

    def index(self, label: str, source: str = "labels") -> int:
        """Return the class index of a label id.

        Raises `ManifestError`, which names the `source`, if it is not in the list.
        """
        try:
            return self._positions[label]
        except KeyError:
            raise ManifestError(
                f"{source}: label '{label}' is not in the list of {len(self)} labels "
                "(use the label list that was written with the manifest)"
            ) from None

    def encode(self, labels: str, source: str = "labels") -> Tensor:
        """Convert the ``labels`` of a manifest to a multi-hot vector `[C]` float32.

        Raises `ManifestError`, which names the `source`, if a label is not in the list.
        """
        target = torch.zeros(len(self))
        for label in labels.split(";") if labels else ():
            target[self.index(label, source)] = 1.0
        return target


def write_labels(path: str | os.PathLike[str], labels: LabelSet) -> None:
    """Write a label list in AudioSet's format, atomically."""
    classes = zip(range(len(labels)), labels.ids, labels.names, strict=True)
    with atomic_open(path) as file:
        csv.writer(file).writerows([LABEL_COLUMNS, *classes])


def read_labels(path: str | os.PathLike[str]) -> LabelSet:
    """Read a label list such as ``class_labels_indices.csv``: index, mid, display_name.

    The header is optional (the official EAT code has none). Raises `ManifestError` if
    the file is missing or malformed, or an index or id occurs twice.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as CSV ({error})") from None
    has_header = rows[:1] == [LABEL_COLUMNS]
    rows = rows[has_header:]
    if not rows or not (has_header or rows[0][:1] == ["0"]):
        raise ManifestError(
            f"{path}: not a label list (the first line must be "
            f"'{','.join(LABEL_COLUMNS)}', followed by one class per line)"
        )
    for number, row in enumerate(rows):
        if len(row) != 3 or row[0] != str(number):
            raise ManifestError(
                f"{path}: line {number + 1 + has_header} is {row} "
                f"(expected index {number}, id, name)"
            )
    labels = LabelSet(tuple(row[1] for row in rows), tuple(row[2] for row in rows))
    if len(set(labels.ids)) < len(labels):
        raise ManifestError(f"{path}: a label id occurs twice (keep one line for each)")
    return labels
