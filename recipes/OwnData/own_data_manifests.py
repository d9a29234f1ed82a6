"""From labeled recordings to manifests, with warnings about what they lack."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from own_data_recordings import UNUSABLE
from own_data_splits import TEST, TRAIN, VALID, Labeled

from eat.data.compact_manifest import CompactManifest
from eat.data.manifest import ManifestRow
from eat.data.prepare import Clip, Selection
from eat.errors import ExperimentError

logger = logging.getLogger(__name__)

PRETRAIN, TRAINED, TESTED = "pretrain", "balanced_train", "eval"
SUBSETS = {TRAIN: TRAINED, VALID: "valid", TEST: TESTED}  # by split


def list_parts(
    files: Iterable[str], labeled: Mapping[str, Labeled]
) -> dict[str, list[str]]:
    """Return the files of each part that has files: pretrain, splits, folds."""
    parts: dict[str, list[str]] = defaultdict(list)
    splits = {line.split for line in labeled.values()}
    # Validation clips without test clips are what the model is evaluated on.
    subsets = SUBSETS if TEST in splits else {**SUBSETS, VALID: TESTED}
    for file, line in labeled.items():
        if line.split:
            parts[subsets[line.split]].append(file)
        if line.fold and line.split != TEST:
            parts[f"fold_{line.fold}"].append(file)
    held_out = {file for file, x in labeled.items() if x.split in (VALID, TEST)}
    parts[PRETRAIN] = [file for file in files if file not in held_out]
    return {part: names for part, names in parts.items() if names}


def list_clips(
    part: str,
    files: Iterable[str],
    labeled: Mapping[str, Labeled],
    ids: Mapping[str, str],
) -> Iterator[Clip]:
    """Yield the clips of a part."""
    for file in files:
        line = labeled.get(file, Labeled(()))
        fault = None if part == PRETRAIN and file in ids else line.fault
        if not fault and UNUSABLE.search(file):
            fault = (
                "invalid name: contains $ or unprintable characters, or begins with a "
                "space (rename it)"
            )
        elif not fault and part != PRETRAIN and not line.labels:
            fault = "no label"
        yield Clip(ids.get(file, file), file, line.labels, fault)


def make_manifests(parts: Mapping[str, Selection]) -> dict[str, list[ManifestRow]]:
    """Return the rows of each manifest: those of the splits, and three per fold."""
    folds = {name.removeprefix("fold_"): name for name in parts if "fold_" in name}
    manifests = {
        name: list(selection.rows)
        for name, selection in parts.items()
        if name not in folds.values()
    }
    for fold, part in folds.items():
        rows = parts[part].rows
        held_out = {row.wav for row in rows}
        manifests[f"{TESTED}_{fold}"] = list(rows)
        manifests[f"{TRAINED}_{fold}"] = [
            row for name in folds.values() if name != part for row in parts[name].rows
        ]
        pretrain = parts[PRETRAIN].rows if PRETRAIN in parts else ()
        manifests[f"{PRETRAIN}_{fold}"] = [x for x in pretrain if x.wav not in held_out]
    return {name: rows for name, rows in manifests.items() if rows}


def warn_about_classes(
    manifests: Mapping[str, list[ManifestRow]], classes: list[str]
) -> None:
    """Warn about classes without a clip to train on or to evaluate with."""
    kinds = (TRAINED, "training"), (TESTED, "evaluation")
    for name in sorted(
        {
            name.removeprefix(TRAINED).removeprefix(TESTED)
            for name in manifests
            if name.startswith((TRAINED, TESTED))
        }
    ):
        for prefix, purpose in kinds:
            rows = manifests.get(prefix + name, ())
            found = {label for row in rows for label in row.labels}
            if absent := [label for label in classes if label not in found]:
                logger.warning(
                    "%d of %d classes have no clip for %s%s, e.g. '%s'",
                    *(len(absent), len(classes), purpose),
                    *(f" in fold {name[1:]}" if name else "", absent[0]),
                )


def count_long(parts: Mapping[str, Selection], max_seconds: float) -> int:
    """Return how many recordings are longer than what is used; warn about them."""
    rows = chain.from_iterable(selection.rows for selection in parts.values())
    seconds = {row.wav: row.seconds for row in rows}
    long = sum(length > max_seconds for length in seconds.values())
    if long:
        logger.warning(
            "%d of %d recordings are longer than %g s: only the first %g s are used "
            "(cut them beforehand, e.g. ffmpeg -i LONG.wav -f segment -segment_time 10 "
            "PART%%03d.wav)",
            *(long, len(seconds), max_seconds, max_seconds),
        )
    return long


def log_use(parts: Mapping[str, Selection], save_folder: Path) -> None:
    """Log, as the last line, how many clips are used and why others are not."""
    labeled = {name: parts[name] for name in parts if name != PRETRAIN}
    used = {row.wav for part in parts.values() for row in part.rows}
    skipped = {x.file: x.reason for part in parts.values() for x in part.skipped}
    unused = {file: reason for file, reason in skipped.items() if file not in used}
    tuned = {row.wav for part in labeled.values() for row in part.rows}
    line = f"Used: {len(used)} of {len(used) + len(unused)} recordings"
    if labeled:
        line += f", {len(tuned)} of them with labels"
    reasons: dict[str, list[str]] = defaultdict(list)
    for file, reason in skipped.items():
        reasons[reason.partition(":")[0]].append(file)
    for reason, files in reasons.items():
        pretrained = " (for pre-training only)" if files[0] in used else ""
        line += f"; {len(files)} {reason}{pretrained}, e.g. {files[0]!r}"
    logger.info("%s%s", line, f" (see {save_folder / 'skipped.csv'})" * bool(skipped))


def stale_manifests(save_folder: Path) -> list[str]:
    """Return the manifests that earlier runs wrote."""
    names = (PRETRAIN, *SUBSETS.values(), "labels")
    found = chain.from_iterable(
        save_folder.glob(pattern)
        for name in names
        for pattern in (f"{name}.csv", f"{name}_*.csv")
    )
    return [path.name for path in found]


# -- what train.py asks ----------------------------------------------------------------


def list_folds(folder: Path) -> list[int]:
    """Return the folds that a folder of manifests has."""
    names = (path.stem.removeprefix(f"{TESTED}_") for path in folder.glob("*.csv"))
    return sorted(int(name) for name in names if name.isdecimal())


def find_manifest(folder: str | Path, name: str, fold: int | None) -> Path:
    """Return the path of a manifest, which may not exist unless it is for evaluation.

    Raises `ExperimentError` if there is no such fold, or there are folds and none of
    them is given, or no clips for evaluation.
    """
    folder = Path(folder)
    folds = list_folds(folder)
    splits = any((folder / f"{part}.csv").is_file() for part in (TRAINED, TESTED))
    if fold not in (None, *folds) or (fold is None and folds and not splits):
        there = f"folds {', '.join(map(str, folds))}" if folds else "no folds"
        remedy = f"--fold {folds[0]}" if folds else "a column fold"
        raise ExperimentError(
            f"fold {'' if fold is None else fold}: {folder} has {there} (give {remedy})"
        )
    path = folder / (f"{name}.csv" if fold is None else f"{name}_{fold}.csv")
    if name == TESTED and not path.is_file():
        raise ExperimentError(
            f"{path}: no usable clips for evaluation (give some the split test)"
        )
    return path


def find_several_labels(manifests: Iterable[Path]) -> str:
    """Return a clip with several labels as ``MANIFEST: ID``, empty if there is none."""
    for path in manifests:
        rows = CompactManifest(path)
        if (clip := rows.labels.find_several()) is not None:
            return f"{path}: {rows.ids[clip]}"
    return ""
