"""Manifests and label lists: CSV files that SpeechBrain and a spreadsheet can read.

A manifest has the columns ``ID, duration, wav, labels``. ``wav`` starts with
``$data_root/``, which SpeechBrain replaces at load time, so that a manifest does not
depend on where the corpus is stored; a file outside the corpus folder is given by its
absolute path. ``labels`` holds label ids joined by ``;``.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eat.data.tables import read_table
from eat.errors import ManifestError
from eat.utils.files import atomic_open
from eat.utils.text import BLANK, clean

COLUMNS = ("ID", "duration", "wav", "labels")
LABEL_COLUMNS = ("index", "mid", "display_name")


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
    """The classes of a corpus, in the order of the classifier's outputs.

    Ids and names are kept in normal form, see `eat.utils.text.clean`, and labels are
    looked up in it. Raises `ManifestError` if two ids are the same then.
    """

    ids: tuple[str, ...]  # as used in manifests, e.g. ``/m/09x0r``
    names: tuple[str, ...]  # for display, e.g. ``Speech``

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(map(clean, self.ids)))
        object.__setattr__(self, "names", tuple(map(clean, self.names)))
        if twice := [label for label, n in Counter(self.ids).items() if n > 1]:
            raise ManifestError(
                f"labels: label id '{twice[0]}' occurs twice (keep one line for each)"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label: position for position, label in enumerate(self.ids)}

    def __contains__(self, label: str) -> bool:
        return clean(label) in self._positions

    def index(self, label: str, source: str = "labels") -> int:
        """Return the class index of a label id.

        Raises `ManifestError`, which names the `source`, if it is not in the list.
        """
        try:
            return self._positions[clean(label)]
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
        for label in filter(None, map(clean, labels.split(";"))):
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
    ids: dict[str, str] = {}
    for line, row in read_table(path, LABEL_COLUMNS, header="optional"):
        index, label, name = row.values()
        if index != str(len(ids)):
            raise ManifestError(
                f"{path}: line {line} has index {index!r}, not index {len(ids)} (a "
                f"label list has the columns {','.join(LABEL_COLUMNS)} and one class "
                "per line, in order from index 0)"
            )
        if not label or ";" in label:
            raise ManifestError(
                f"{path}: line {line}: label id {label!r} (ids must not be empty or "
                "contain a semicolon)"
            )
        if label in ids:
            raise ManifestError(
                f"{path}: line {line}: label id {label!r} occurs twice (keep one line "
                "for each)"
            )
        ids[label] = name or label
    if not ids:
        raise ManifestError(
            f"{path}: no classes in it (a label list has the columns "
            f"{','.join(LABEL_COLUMNS)} and one class per line)"
        )
    return LabelSet(tuple(ids), tuple(ids.values()))


def similar_names(names: Iterable[str]) -> list[str]:
    """Return the names that are equal to another but for case, spaces and the like.

    Those that are equal stand side by side.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        bare = folded.translate(dict.fromkeys(map(ord, BLANK + "_-")))
        groups.setdefault(bare, []).append(name)
    return [name for group in groups.values() if len(group) > 1 for name in group]
