"""Prepare ESC-50: its table and folder of wavs in, manifests for five folds out.

Usage: ``python esc50_prepare.py DATA_FOLDER SAVE_FOLDER``

DATA_FOLDER is ``ESC-50-master`` (https://github.com/karolpiczak/ESC-50) or its parent:
``meta/esc50.csv`` and ``audio/<fold>-<clip id>-<take>-<target>.wav``. SAVE_FOLDER
receives, for each fold k, ``test_k.csv`` (its clips) and ``train_k.csv`` (those of the
other folds), ``all.csv``, ``labels.csv``, ``skipped.csv`` (each file that is not used,
and why) and ``summary.json`` (the counts). The folds are the corpus's own: takes of one
recording are in one fold, and scores are comparable on these folds only.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from eat.audio.io import AudioInfo
from eat.data.manifest import ManifestRow
from eat.data.prepare import (
    Skipped,
    abbreviate,
    check_listed,
    find_corpus,
    list_files,
    make_save_folder,
    up_to_date,
    write_prepared,
)
from eat.errors import ManifestError

logger = logging.getLogger(__name__)

FOLDS = range(1, 6)
CLASSES = 50
CLIPS = {"all": 2000, "fold": 400, "class": 40}
MIN_SAMPLES = 1103  # one frame of 25 ms at 44.1 kHz
TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "target", "category", "src_file")
FILE_NAME = re.compile(r"([1-5])-[^/]+-(\d+)\.wav")
MANIFESTS = ["all", *(f"{part}_{k}" for k in FOLDS for part in ("train", "test"))]
OUTPUTS = [*MANIFESTS, "labels", "skipped"]


class Clip(NamedTuple):
    """A row of ``esc50.csv``."""

    name: str
    fold: int
    target: int
    category: str
    recording: str


def _read_row(row: dict[str, str]) -> Clip:
    """Turn a row into a clip; ValueError if it is torn or contradicts itself."""
    if None in row or None in row.values():
        raise ValueError("a field too many or too few")
    name, fold, target, category, recording = (row[column] for column in COLUMNS)
    match = FILE_NAME.fullmatch(name)
    if not match or match.groups() != (fold, target):
        raise ValueError(f"'{name}' is no clip of fold '{fold}', target '{target}'")
    return Clip(name, int(fold), int(target), category, recording)


def _read_table(path: Path) -> list[Clip]:
    """Read ``esc50.csv``; each file stands there once, each target has one category."""
    clips: dict[str, Clip] = {}
    categories: dict[int, str] = {}
    targets: dict[str, int] = {}
    line = 1
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := set(COLUMNS) - set(reader.fieldnames or ()):
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            for row in reader:
                line = reader.line_num
                clip = _read_row(row)
                if clips.setdefault(clip.name, clip) is not clip:
                    raise ValueError(f"'{clip.name}' stands there twice")
                target, name = clip.target, clip.category
                known = categories.setdefault(target, name)
                if known != name or targets.setdefault(name, target) != target:
                    raise ValueError(f"target {target} and '{name}' do not go together")
    except (OSError, ValueError, csv.Error) as error:
        raise ManifestError(f"{path}: line {line}: {error} (unpack it again)") from None
    return list(clips.values())


def _warn_of_counts(clips: list[Clip]) -> None:
    """Warn where the table is not the true one's, or its folds share recordings."""
    if len(clips) != CLIPS["all"]:
        logger.warning("%d clips listed; ESC-50 has %d", len(clips), CLIPS["all"])
    folds = Counter(clip.fold for clip in clips)
    if folds != dict.fromkeys(FOLDS, CLIPS["fold"]):
        line = "%s clips in the folds; ESC-50 has %d in each"
        logger.warning(line, abbreviate(folds[fold] for fold in FOLDS), CLIPS["fold"])
    sizes = sorted(Counter(clip.category for clip in clips).values())
    if sizes != CLASSES * [CLIPS["class"]]:
        found = f"{len(sizes)} classes of {sizes[0]} to {sizes[-1]} clips"
        logger.warning("%s; ESC-50 has %d of %d", found, CLASSES, CLIPS["class"])
    folds_of = defaultdict(set)
    for clip in clips:
        folds_of[clip.recording].add(clip.fold)
    if shared := [recording for recording in folds_of if len(folds_of[recording]) > 1]:
        line = "%d recordings are in several folds, scores flatter: src_file %s"
        logger.warning(line, len(shared), abbreviate(shared))


def _count(clips: list[Clip], used: list[Clip], true: bool) -> dict[str, object]:
    """Sum up each fold for the summary, and log it in a line."""
    subsets = {}
    for fold in FOLDS:
        here = [clip for clip in used if clip.fold == fold]
        counts = {
            "listed": sum(clip.fold == fold for clip in clips),
            "used": len(here),
            "used_in_paper": CLIPS["fold"] if true else None,
            "recordings": len({clip.recording for clip in here}),
        }
        subsets[f"fold{fold}"] = counts
        line = "{listed} clips listed, {used} used, takes of {recordings} recordings"
        logger.info("fold%d: %s", fold, line.format(**counts))
    return subsets


def _make_manifests(
    clips: dict[str, Clip], headers: dict[str, AudioInfo]
) -> dict[str, list[ManifestRow]]:
    """Make the rows of each manifest; no clip of a fold is in its training set."""
    manifests: dict[str, list[ManifestRow]] = {name: [] for name in MANIFESTS}
    for file, info in headers.items():
        _, own_fold, _, label, _ = clips[file]
        row = ManifestRow(Path(file).stem, info.seconds, file, (label,))
        manifests["all"].append(row)
        for fold in FOLDS:
            manifests[f"{'test' if fold == own_fold else 'train'}_{fold}"].append(row)
    return manifests


def prepare_esc50(
    data_folder: str | os.PathLike[str], save_folder: str | os.PathLike[str]
) -> None:
    """Write the manifests of ESC-50, unless they are there already.

    Parameters
    ----------
    data_folder, save_folder : str or PathLike
        Corpus and results, see the top of this file.

    Raises
    ------
    ManifestError
        If the corpus is missing or not unpacked, its table malformed, the save folder
        cannot be written, or no listed clip can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    below = find_corpus(data_folder, "ESC-50-master", TABLE)
    make_save_folder(save_folder)
    table, audio = data_folder / below / TABLE, f"{below}audio"
    found, facts = list_files(data_folder, [audio])
    stamp = table.stat().st_size, table.stat().st_mtime_ns
    inputs = {"corpus": below, "table": stamp, "audio": facts}
    if up_to_date(save_folder, inputs, [f"{name}.csv" for name in OUTPUTS]):
        logger.info("%s: the manifests are up to date", save_folder)
        return

    clips = {f"{audio}/{clip.name}": clip for clip in _read_table(table)}
    listed = {f: (Path(f).stem, f"fold{clip.fold}") for f, clip in clips.items()}
    cache = save_folder / "checked.csv"
    headers, skipped = check_listed(data_folder, listed, found, cache, MIN_SAMPLES)
    if not headers:
        fault = f"none of the {len(clips)} clips of {TABLE} can be used"
        raise ManifestError(f"{data_folder / audio}: {fault} (unpack it again)")
    surplus = [file for file in found if file not in clips]
    skipped += [Skipped(Path(f).stem, f, "", f"not in {TABLE}") for f in surplus]
    all_clips, used = list(clips.values()), [clips[file] for file in headers]
    _warn_of_counts(all_clips)
    labels = [name for _, name in sorted({(c.target, c.category) for c in all_clips})]
    counts = _count(all_clips, used, true=len(labels) == CLASSES)
    summary = {"subsets": counts, "inputs": inputs}
    manifests = _make_manifests(clips, headers)
    write_prepared(save_folder, manifests, labels, skipped, summary)


def main() -> None:
    """Run `prepare_esc50` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help="ESC-50-master or its parent")
    parser.add_argument("save_folder", help="folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_esc50(arguments.data_folder, arguments.save_folder)
    except ManifestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
