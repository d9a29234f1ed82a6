"""Manifests and label lists: CSV files that SpeechBrain and a spreadsheet both read.

A manifest has the columns ``ID, duration, wav, labels``. ``wav`` begins with
``$data_root/``, which SpeechBrain replaces when it loads the file, so a manifest does
not depend on where the corpus lies; a file outside the corpus folder stands there with
its absolute path. ``labels`` holds label ids joined by ``;``.
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
    """One clip of a manifest.

    Attributes
    ----------
    id : str
        Unique name of the clip.
    seconds : float
        Duration in seconds.
    wav : str
        Path of the file below the corpus folder, with forward slashes, or absolute.
    labels : tuple of str
        Label ids; may be empty.
    """

    id: str
    seconds: float
    wav: str
    labels: tuple[str, ...] = ()


def write_manifest(path: str | os.PathLike[str], rows: Iterable[ManifestRow]) -> None:
    """Write a manifest atomically.

    Parameters
    ----------
    path : str or PathLike
        CSV file to write.
    rows : iterable of ManifestRow
        The clips.
    """
    with atomic_open(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            wav = row.wav if os.path.isabs(row.wav) else f"$data_root/{row.wav}"
            writer.writerow((row.id, f"{row.seconds:.4f}", wav, ";".join(row.labels)))


@dataclass(frozen=True)
class LabelSet:
    """The classes of a corpus, in the order of the classifier's outputs.

    Attributes
    ----------
    ids : tuple of str
        Label ids as manifests use them, e.g. ``/m/09x0r``.
    names : tuple of str
        Names for people, e.g. ``Speech``.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label: position for position, label in enumerate(self.ids)}

    def __contains__(self, label: str) -> bool:
        return label in self._positions

    def index(self, label: str, source: str = "labels") -> int:
        """Return the class index of a label id.

        Parameters
        ----------
        label : str
            A label id.
        source : str
            The clip or file the label comes from, for the error.

        Returns
        -------
        int
            Index in [0, C).

        Raises
        ------
        ManifestError
            If the label is not in the list.
        """
        try:
            return self._positions[label]
        except KeyError:
            raise ManifestError(
                f"{source}: label '{label}' is not among the {len(self)} labels of the "
                "list (use the label list of this corpus, or remove the clip)"
            ) from None

    def encode(self, labels: str, source: str = "labels") -> Tensor:
        """Turn the ``labels`` field of a manifest into a multi-hot vector.

        Parameters
        ----------
        labels : str
            Label ids joined by ``;``; empty means no label.
        source : str
            The clip or file the labels come from, for the error.

        Returns
        -------
        Tensor
            `[C]` float32 of zeros and ones.

        Raises
        ------
        ManifestError
            If a label is not in the list.
        """
        target = torch.zeros(len(self))
        for label in labels.split(";") if labels else ():
            target[self.index(label, source)] = 1.0
        return target


def read_labels(path: str | os.PathLike[str]) -> LabelSet:
    """Read a label list in AudioSet's form, with columns index, mid, display_name.

    Parameters
    ----------
    path : str or PathLike
        CSV file such as ``class_labels_indices.csv``, with or without the line of
        column names (the official EAT code has none).

    Returns
    -------
    LabelSet
        The classes, in the order of their index.

    Raises
    ------
    ManifestError
        If the file is missing or not such a list, or an index or id is doubled.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as CSV ({error})") from None
    named = rows[:1] == [LABEL_COLUMNS]
    rows = rows[named:]
    if not rows or not (named or rows[0][:1] == ["0"]):
        raise ManifestError(
            f"{path}: not a label list (the first line must be "
            f"'{','.join(LABEL_COLUMNS)}', then one class a line)"
        )
    for number, row in enumerate(rows):
        if len(row) != 3 or row[0] != str(number):
            raise ManifestError(
                f"{path}: line {number + 1 + named} is {row} "
                f"(expected index {number}, id, name)"
            )
    labels = LabelSet(tuple(row[1] for row in rows), tuple(row[2] for row in rows))
    if len(set(labels.ids)) < len(labels):
        raise ManifestError(f"{path}: a label id stands twice (keep one line each)")
    return labels
