"""What a prepared corpus trains and evaluates a probe on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import LabelSet
from eat.errors import ManifestError

MIN_CLIPS = 10  # to fit, so that two are in each of five folds
# Training and test manifests of AudioSet and of own recordings; of Speech Commands.
PAIRS = (("balanced_train", "eval"), ("train", "test"))
FOLDS = ("test_*.csv", "eval_*.csv")  # of ESC-50 and of own recordings


class Split(NamedTuple):
    """Manifests to fit on, together, and to evaluate on."""

    train: tuple[Path, ...]
    test: Path


def find_splits(
    folder: Path, train: Sequence[str] | None = None, test: str | None = None
) -> list[Split]:
    """Return the splits of a folder that a prepare script wrote.

    These are the recipe's training and evaluation clips, or one split for each fold:
    its clips are evaluated with a probe that was fitted on those of the other folds.
    Training and test manifests may be given by name, without ``.csv``.

    Raises `ManifestError` if there are none, or one that was named is missing.
    """
    if train or test:
        if not (train and test):
            raise ManifestError(f"{folder}: give both --train and --test, or neither")
        return [
            Split(tuple(_named(folder, name) for name in train), _named(folder, test))
        ]
    for fitted, evaluated in PAIRS:
        paths = folder / f"{fitted}.csv", folder / f"{evaluated}.csv"
        if all(path.is_file() for path in paths):
            return [Split(paths[:1], paths[1])]
    for pattern in FOLDS:
        if len(folds := sorted(folder.glob(pattern))) > 1:
            return [Split(tuple(f for f in folds if f != fold), fold) for fold in folds]
    raise ManifestError(
        f"{folder}: no manifests to train and evaluate on, such as balanced_train.csv "
        "and eval.csv (give the SAVE_FOLDER of a recipe's prepare script, or name them "
        "with --train and --test)"
    )


def read_targets(splits: Sequence[Split], labels: LabelSet) -> dict[Path, Tensor]:
    """Return the multi-hot labels `[M, C]` of the clips of each manifest.

    Raises `ManifestError` if scores of these clips would mean nothing: clips without
    labels, the same clip in several manifests of a split, fewer than `MIN_CLIPS` to
    fit, or the same labels on all of them.
    """
    every = chain(*((*train, test) for train, test in splits))
    clips = {path: CompactManifest(path) for path in every}
    targets = {path: _targets(path, clips[path], labels) for path in clips}
    for train, test in splits:
        _require_disjoint([(path, clips[path]) for path in (*train, test)])
        _require_classes(train, torch.cat([targets[path] for path in train]), MIN_CLIPS)
    tests = [split.test for split in splits]
    _require_classes(tests, torch.cat([targets[path] for path in tests]))
    return targets


def _targets(path: Path, clips: CompactManifest, labels: LabelSet) -> Tensor:
    found = torch.stack([labels.encode(joined, str(path)) for joined in clips.labels])
    unlabeled = (found.sum(dim=1) == 0).nonzero()[:, 0].tolist()
    if unlabeled:
        raise ManifestError(
            f"{path}: {len(unlabeled)} of {len(clips)} clips without labels, such as "
            f"{clips.ids[unlabeled[0]]} (label them, or remove them from the manifest)"
        )
    return found


def _require_disjoint(parts: Sequence[tuple[Path, CompactManifest]]) -> None:
    for columns in zip(*((set(c.ids), set(c.wavs)) for _, c in parts), strict=True):
        shared = sum(map(len, columns)) - len(set.union(*columns))
        if shared:
            raise ManifestError(
                f"{_names(path for path, _ in parts)}: {shared} clips are in several "
                "of these manifests (fit and evaluate on different clips)"
            )


def _require_classes(paths: Sequence[Path], targets: Tensor, clips: int = 1) -> None:
    if len(targets) < clips:
        raise ManifestError(
            f"{_names(paths)}: {len(targets)} clips to fit a probe on (give at least "
            f"{clips})"
        )
    if (targets == targets[0]).all():
        raise ManifestError(
            f"{_names(paths)}: all {len(targets)} clips have the same labels (add "
            "clips of other classes)"
        )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _named(folder: Path, name: str) -> Path:
    path = folder / f"{name}.csv"
    if not path.is_file():
        found = sorted(p.stem for p in folder.glob("*.csv"))
        raise ManifestError(
            f"{path}: no such manifest (choose from {', '.join(found)})"
        )
    return path
