"""Prepare ESC-50: write the manifests of its five folds.

Usage: python esc50_prepare.py DATA_FOLDER SAVE_FOLDER [--part i/N | --merge N]

DATA_FOLDER is ESC-50-master (https://github.com/karolpiczak/ESC-50) or its parent, with
meta/esc50.csv and audio/<fold>-<clip id>-<take>-<target>.wav. SAVE_FOLDER receives, for
each fold k, test_k.csv (its clips) and train_k.csv (the clips of the other folds);
all.csv, labels.csv, skipped.csv (unused files and the reasons) and summary.json
(counts). The folds are those of the corpus: all takes of a recording are in one fold,
and published scores are comparable on these folds only.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from eat.data.audio_check import Verdict, check_audio
from eat.data.check_parts import check_part
from eat.data.corpus_folder import find_corpus, fingerprint, list_files
from eat.data.manifest import LabelSet, ManifestRow
from eat.data.prepare import (
    Clip,
    Selection,
    Skipped,
    abbreviate,
    make_save_folder,
    require_usable,
    run_command_line,
    select_clips,
    up_to_date,
    write_results,
)
from eat.data.tables import read_table
from eat.errors import ManifestError
from eat.utils.parts import WHOLE, Part

logger = logging.getLogger(__name__)

FOLDS = range(1, 6)
CLASSES, CLIPS, CLIPS_PER_FOLD, CLIPS_PER_CLASS = 50, 2000, 400, 40
TABLE = "meta/esc50.csv"
REMEDY = "unpack the corpus again"
COLUMNS = ("filename", "fold", "target", "category", "src_file")
FILE_NAME = re.compile(r"([1-5])-[^/]+-(\d+)\.wav")


class Row(NamedTuple):
    """A row of ``esc50.csv``."""

    name: str
    fold: int
    target: int
    category: str
    recording: str


def _parse_row(fields: dict[str, str]) -> Row:
    """Parse a row; raise ValueError if it is inconsistent."""
    name, fold, target, category, recording = (fields[column] for column in COLUMNS)
    fold, target = fold.removesuffix(".0"), target.removesuffix(".0")  # of pandas
    match = FILE_NAME.fullmatch(name)
    if not match or match.groups() != (fold, target):
        raise ValueError(f"{name!r} does not match fold {fold!r}, target {target!r}")
    return Row(name, int(fold), int(target), category, recording)


def _read_table(path: Path) -> list[Row]:
    """Read ``esc50.csv``: unique file names, one target per category."""
    rows: dict[str, Row] = {}
    categories: dict[int, str] = {}
    targets: dict[str, int] = {}
    for line, fields in read_table(path, COLUMNS, remedy=REMEDY):
        try:
            row = _parse_row(fields)
            if rows.setdefault(row.name, row) is not row:
                raise ValueError(f"'{row.name}' occurs twice")
            target, name = row.target, row.category
            known = categories.setdefault(target, name)
            if known != name or targets.setdefault(name, target) != target:
                raise ValueError(f"target {target} and {name!r} are inconsistent")
        except ValueError as error:
            raise ManifestError(f"{path}: line {line}: {error} ({REMEDY})") from None
    if not rows:
        raise ManifestError(f"{path}: no clips in it ({REMEDY})")
    return list(rows.values())


def _warn_about_counts(rows: list[Row]) -> None:
    """Warn if the table is not the original one, or if folds share recordings."""
    if len(rows) != CLIPS:
        logger.warning("%d clips listed; ESC-50 has %d", len(rows), CLIPS)
    folds = Counter(row.fold for row in rows)
    if folds != dict.fromkeys(FOLDS, CLIPS_PER_FOLD):
        line = "%s clips in the folds; ESC-50 has %d in each"
        logger.warning(line, abbreviate(folds[fold] for fold in FOLDS), CLIPS_PER_FOLD)
    sizes = sorted(Counter(row.category for row in rows).values())
    if sizes != CLASSES * [CLIPS_PER_CLASS]:
        found = f"{len(sizes)} classes of {sizes[0]} to {sizes[-1]} clips"
        logger.warning("%s; ESC-50 has %d of %d", found, CLASSES, CLIPS_PER_CLASS)
    folds_of = defaultdict(set)
    for row in rows:
        folds_of[row.recording].add(row.fold)
    if shared := [recording for recording, its in folds_of.items() if len(its) > 1]:
        line = "%d recordings are in several folds, which inflates scores: src_file %s"
        logger.warning(line, len(shared), abbreviate(shared))


def _select_folds(
    table: Mapping[str, Row], verdicts: Mapping[str, Verdict]
) -> dict[str, Selection]:
    """Select the usable clips of each fold; `table` and `verdicts` are by file."""
    original = len({row.category for row in table.values()}) == CLASSES
    in_paper = CLIPS_PER_FOLD if original else None
    folds = {}
    for fold in FOLDS:
        clips = (
            Clip(Path(file).stem, file, (row.category,))
            for file, row in table.items()
            if row.fold == fold
        )
        selection = select_clips(f"fold{fold}", clips, verdicts, in_paper)
        recordings = {table[row.wav].recording for row in selection.rows}
        selection.counts["recordings"] = len(recordings)
        folds[f"fold{fold}"] = selection
    return folds


def _make_manifests(
    table: Mapping[str, Row], folds: Mapping[str, Selection]
) -> dict[str, list[ManifestRow]]:
    """Return the rows of each manifest, in the order of the table."""
    used = {row.wav: row for selection in folds.values() for row in selection.rows}
    rows = [(table[file].fold, used[file]) for file in table if file in used]
    manifests = {"all": [row for _, row in rows]}
    for k in FOLDS:
        manifests[f"train_{k}"] = [row for fold, row in rows if fold != k]
        manifests[f"test_{k}"] = [row for fold, row in rows if fold == k]
    return manifests


def prepare_esc50(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    part: Part = WHOLE,
) -> None:
    """Write the manifests of ESC-50, unless they are up to date.

    A part of several checks its share of the files; the last one writes the manifests.

    Raises `ManifestError` if the corpus is missing or not unpacked, its table is
    malformed, the save folder is not writable, or no listed clip can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    prefix = find_corpus(data_folder, "ESC-50-master", TABLE)
    audio = f"{prefix}audio"
    found = list_files(data_folder, [audio])
    inputs = {"files": fingerprint(data_folder, [prefix + TABLE, *found])}
    if up_to_date(save_folder, inputs):
        return

    make_save_folder(save_folder)
    rows = _read_table(data_folder / prefix / TABLE)
    _warn_about_counts(rows)
    table = {f"{audio}/{row.name}": row for row in rows}
    if not check_part(data_folder, table, save_folder, inputs, part):
        return
    verdicts = check_audio(data_folder, table, save_folder)
    folds = _select_folds(table, verdicts)
    require_usable(folds, data_folder / audio, "unpack the corpus again")
    unlisted = [file for file in found if file not in table]
    names = [name for _, name in sorted({(row.target, row.category) for row in rows})]
    write_results(
        save_folder,
        inputs,
        folds,
        LabelSet(tuple(names), tuple(name.replace("_", " ") for name in names)),
        manifests=_make_manifests(table, folds),
        unlisted=[Skipped(Path(f).stem, f, "", f"not in {TABLE}") for f in unlisted],
    )


if __name__ == "__main__":
    run_command_line(prepare_esc50, __doc__, "ESC-50-master or its parent")
