"""What a prepared corpus trains and evaluates a probe on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eat.errors import ManifestError

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


def _named(folder: Path, name: str) -> Path:
    path = folder / f"{name}.csv"
    if not path.is_file():
        found = sorted(p.stem for p in folder.glob("*.csv"))
        raise ManifestError(
            f"{path}: no such manifest (choose from {', '.join(found)})"
        )
    return path
