"""Prepare a folder of recordings: write its manifests, with or without labels.

Usage: python own_data_prepare.py DATA_FOLDER SAVE_FOLDER [--labels TABLE|folders|none]
           [--test_labels TABLE] [--max_seconds 10.26] [--part i/N | --merge N]

DATA_FOLDER contains audio files at any depth; hidden files are ignored. Their labels
are in a table, by default DATA_FOLDER/labels.csv, with columns for file and labels, or
are the names of the folders, as in dog/1.wav or train/dog/1.wav. The recordings to test
on are those of split test, of a second table, or of a fold. If neither is given, they
are about a fifth of each class: those whose path has a SHA-256 divisible by five.

SAVE_FOLDER receives pretrain.csv (all recordings except those for evaluation); with
labels also balanced_train.csv, valid.csv and eval.csv (the labeled recordings, by
split), or pretrain_K.csv, balanced_train_K.csv and eval_K.csv for each fold K, and
labels.csv (the classes); skipped.csv (unused files and the reasons) and summary.json
(counts).
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from own_data_copies import find_copies, warn_about_copies
from own_data_labels import label_from_folders, label_from_table, warn_about_names
from own_data_manifests import (
    PRETRAIN,
    count_long,
    list_clips,
    list_parts,
    log_use,
    make_manifests,
    stale_manifests,
    warn_about_classes,
)
from own_data_paths import RecordingFinder
from own_data_recordings import LABELS, UNUSABLE, find_recordings, name_clips
from own_data_splits import (
    TEST,
    TRAIN,
    Labeled,
    split_by_folders,
    split_by_hash,
    warn_about_sources,
)
from own_data_table import read_label_table

from eat.data.audio_check import Verdict, check_audio
from eat.data.check_parts import check_part
from eat.data.corpus_folder import fingerprint
from eat.data.manifest import LabelSet
from eat.data.prepare import (
    Selection,
    make_save_folder,
    require_usable,
    select_clips,
    up_to_date,
    write_results,
)
from eat.errors import ManifestError, exit_on_error
from eat.utils.arguments import number
from eat.utils.parts import WHOLE, Part, add_part_options

logger = logging.getLogger(__name__)


def find_table(name: str, data_folder: Path) -> Path | None:
    """Return the table with labels; None if there is none, or folders are the labels.

    Raises `ManifestError` if a named table does not exist.
    """
    if name in ("none", "folders"):
        return None
    if name == "auto":
        path = data_folder / LABELS
        return path if path.is_file() else None
    for path in (Path(name), data_folder / name):
        if path.is_file():
            if path.suffix.lower() in (".json", ".jsonl"):
                raise ManifestError(f"{path}: JSON (write the labels as a CSV table)")
            return path
    raise ManifestError(f"{name}: no such table (give labels a path, folders or none)")


def _read_tables(
    data_folder: Path, files: list[str], table: Path, test_table: Path | None
) -> dict[str, Labeled]:
    """Return the labels in one or two tables; all of the second are for testing."""

    def read(path: Path) -> dict[str, Labeled]:
        finder = RecordingFinder(data_folder, path.parent, files)
        entries = read_label_table(path, finder.locate)
        labeled = label_from_table(path, entries, finder)
        if all(line.fault for line in labeled.values()):
            first, line = next(iter(labeled.items()))
            raise ManifestError(
                f"{path}: none of its {len(labeled)} recordings can be used: "
                f"'{first}': {line.fault}; tried {' and '.join(finder.tried(first))} "
                f"(give paths relative to {data_folder})"
            )
        return labeled

    labeled = read(table)
    if test_table is None:
        return labeled
    tests = read(test_table)
    if both := next((file for file in tests if file in labeled), None):
        raise ManifestError(
            f"{test_table}: '{both}' is also in {table} (remove it from one)"
        )
    if not any(line.split or line.fold for line in labeled.values()):
        labeled = {file: replace(x, split=TRAIN) for file, x in labeled.items()}
    tests = {file: replace(x, split=TEST, fold="") for file, x in tests.items()}
    return labeled | tests


def label_recordings(
    data_folder: Path, files: list[str], labels: str, test_labels: str
) -> dict[str, Labeled]:
    """Return the labels of the recordings, and splits if a table has them.

    Raises `ManifestError` if a table is malformed or names no recording.
    """
    table = find_table(labels, data_folder)
    test_table = None if test_labels == "none" else find_table(test_labels, data_folder)
    if table:
        labeled = _read_tables(data_folder, files, table, test_table)
    elif test_table:
        raise ManifestError(f"{test_table}: test_labels need labels (give both tables)")
    elif labels == "none":
        return {}
    else:
        usable = [file for file in files if not UNUSABLE.search(os.path.basename(file))]
        labeled = label_from_folders(data_folder, usable, required=labels == "folders")
    return labeled


def split_recordings(
    data_folder: Path, files: list[str], labeled: dict[str, Labeled], table: Path | None
) -> dict[str, Labeled]:
    """Split the labeled recordings if the table did not; warn about copies."""
    copies = find_copies(data_folder, files) if labeled else {}
    if not any(line.split or line.fold for line in labeled.values()):
        split = split_by_folders(table, labeled) if table else None
        labeled = split or split_by_hash(labeled, copies)
    warn_about_sources(labeled)
    warn_about_copies(labeled, copies)
    return labeled


def all_recordings(files: list[str], labeled: Mapping[str, Labeled]) -> dict[str, None]:
    """Return the recordings of the folder, and those outside that a table names."""
    return dict.fromkeys(
        [*files, *(x for x, line in labeled.items() if not line.fault)]
    )


def select_parts(
    files: list[str], labeled: dict[str, Labeled], verdicts: Mapping[str, Verdict]
) -> dict[str, Selection]:
    """Return the usable and unusable clips of each part."""
    ids = name_clips(all_recordings(files, labeled))
    parts = {}
    for part, members in list_parts(files, labeled).items():
        clips = list_clips(part, members, labeled, ids)
        parts[part] = select_clips(part, clips, verdicts)
    return parts


def write_manifests(
    save_folder: Path,
    inputs: Mapping[str, Any],
    labeled: Mapping[str, Labeled],
    parts: Mapping[str, Selection],
) -> None:
    """Write the manifests, and report what is in them."""
    manifests = make_manifests(parts)
    classes = sorted({label for line in labeled.values() for label in line.labels})
    long = count_long(parts, inputs["max_seconds"])
    if classes:
        warn_about_names(classes)
        warn_about_classes(manifests, classes)
        logger.info("%d classes (add --num_classes %d)", len(classes), len(classes))
    write_results(
        save_folder,
        inputs,
        parts,
        LabelSet(tuple(classes), tuple(classes)) if classes else None,
        manifests=manifests,
        counts={"longer_than_used": long},
        stale=stale_manifests(save_folder),
    )
    log_use(parts, save_folder)


def prepare_own_data(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    max_seconds: float = 10.26,
    labels: str = "auto",
    test_labels: str = "none",
    part: Part = WHOLE,
) -> None:
    """Write the manifests of a folder of recordings, unless they are up to date.

    Parameters
    ----------
    max_seconds
        What is used of a recording; longer ones are reported.
    labels
        A table, ``folders`` if their names are the labels, ``none``, or ``auto``:
        ``labels.csv`` in the data folder if it is there, else folders if most
        recordings are in class folders.
    test_labels
        A second table, of the recordings to evaluate on, or ``none``.
    part
        A part of several checks its share; the last one writes the manifests.

    Raises
    ------
    ManifestError
        If a folder or table cannot be used, or no recording can.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    files = find_recordings(data_folder, save_folder)
    tables = [find_table(name, data_folder) for name in (labels, test_labels)]
    paths = [os.path.abspath(table) for table in tables if table]
    inputs = {
        "fingerprint": fingerprint(data_folder, [*files, *paths]),
        "max_seconds": max_seconds,
        "labels": [labels, test_labels],
    }
    if up_to_date(save_folder, inputs):
        return

    make_save_folder(save_folder)
    labeled = label_recordings(data_folder, files, labels, test_labels)
    names = [x for x in all_recordings(files, labeled) if not UNUSABLE.search(x)]
    if not check_part(data_folder, names, save_folder, inputs, part):
        return
    verdicts = check_audio(data_folder, names, save_folder)
    labeled = split_recordings(data_folder, files, labeled, tables[0])
    parts = select_parts(files, labeled, verdicts)
    trained = {name: parts[name] for name in parts if name != PRETRAIN or not labeled}
    require_usable(trained, data_folder, "check the files")
    write_manifests(save_folder, inputs, labeled, parts)


@exit_on_error()
def main() -> None:
    """Prepare the folder given on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_folder", help="folder of recordings")
    parser.add_argument("save_folder", help="output folder for the manifests")
    table = "table, folders (their names are the labels), none or auto"
    parser.add_argument("--labels", default="auto", help=table)
    parser.add_argument("--test_labels", default="none", help="table to evaluate on")
    seconds, positive = "what is used of a recording", number(0.025, 100_000)
    parser.add_argument("--max_seconds", type=positive, default=10.26, help=seconds)
    add_part_options(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_own_data(**vars(options))


if __name__ == "__main__":
    main()
