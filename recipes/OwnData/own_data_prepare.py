"""Prepare a folder of recordings: write its manifests, with or without labels.

Usage: python own_data_prepare.py DATA_FOLDER SAVE_FOLDER

DATA_FOLDER contains wav, flac, ogg or mp3 files at any depth; hidden files are ignored.
It may contain a labels.csv with the columns file (path relative to DATA_FOLDER), labels
or label (class names, joined by ;) and, optionally, split (train or eval). Without
split, about a fifth of the files are for evaluation: those whose path has a SHA-256
divisible by five, so that adding files never moves others. Give split if several files
have the same source, such as a speaker or a long recording, and keep them together.

SAVE_FOLDER receives pretrain.csv (all recordings except those for evaluation);
with labels also balanced_train.csv and eval.csv (the labeled recordings) and labels.csv
(the classes); skipped.csv (unused files and the reasons) and summary.json (counts).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from own_data_labels import SUBSETS, LabeledFile, read_table
from own_data_recordings import LABELS, UNUSABLE, find_recordings

from eat.data.manifest import LabelSet
from eat.data.prepare import (
    Clip,
    Selection,
    check_audio,
    fingerprint,
    make_save_folder,
    require_usable,
    run_command_line,
    select_clips,
    up_to_date,
    write_results,
)

logger = logging.getLogger(__name__)

PRETRAIN = "pretrain"
STALE = tuple(f"{name}.csv" for name in (PRETRAIN, *SUBSETS.values(), "labels"))


def name_clips(files: Iterable[str]) -> dict[str, str]:
    """Return a unique id for each file: its path, without suffix if that is unique."""
    stems = {file: os.path.splitext(file)[0] for file in files}
    taken = Counter([*stems.values(), *stems])
    return {file: stem if taken[stem] == 1 else file for file, stem in stems.items()}


def split_files(
    files: Iterable[str], table: Mapping[str, LabeledFile]
) -> dict[str, list[str]]:
    """Return the files of each subset that has files."""
    subsets: dict[str, list[str]] = {subset: [] for subset in SUBSETS.values()}
    for file, line in table.items():
        subsets[line.subset].append(file)
    held_out = set(subsets["eval"])
    subsets[PRETRAIN] = [file for file in files if file not in held_out]
    return {subset: names for subset, names in subsets.items() if names}


def _list_clips(
    subset: str,
    files: Iterable[str],
    table: Mapping[str, LabeledFile],
    ids: Mapping[str, str],
    data_folder: Path,
) -> Iterator[Clip]:
    """Yield the clips of a subset; `ids` has the files that are there."""
    for file in files:
        labels = table[file].labels if file in table else ()
        fault = None
        if file not in ids:
            if (data_folder / file).is_file():
                fault = "hidden, or not a wav, flac, ogg or mp3 file"
        elif UNUSABLE.search(file):
            fault = "invalid name: contains $ or unprintable characters (rename it)"
        elif subset != PRETRAIN and not labels:
            fault = f"no label in {LABELS}"
        yield Clip(ids.get(file, file), file, labels, fault)


def _warn_about_classes(subsets: Mapping[str, Selection], classes: list[str]) -> None:
    """Warn about classes without a clip to train on or to evaluate with."""
    for split, subset in SUBSETS.items():
        rows = subsets[subset].rows if subset in subsets else ()
        found = {label for row in rows for label in row.labels}
        if absent := [name for name in classes if name not in found]:
            logger.warning(
                "%d of %d classes have no clip for %s, e.g. '%s' (see split in %s)",
                *(len(absent), len(classes), split, absent[0], LABELS),
            )


def _count_long(subsets: Mapping[str, Selection], max_seconds: float) -> int:
    """Return how many recordings are longer than what is used; warn about them."""
    rows = chain.from_iterable(selection.rows for selection in subsets.values())
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


def prepare_own_data(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    max_seconds: float = 10.26,
) -> None:
    """Write the manifests of a folder of recordings, unless they are up to date.

    The first `max_seconds` of a recording are used; longer ones are counted and
    reported. Raises `ManifestError` if a folder is missing or not writable, no
    recording can be used, or ``labels.csv`` is malformed.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    files = find_recordings(data_folder, save_folder)
    inputs = {
        "fingerprint": fingerprint(data_folder, [*files, LABELS]),
        "max_seconds": max_seconds,
    }
    if up_to_date(save_folder, inputs):
        return

    make_save_folder(save_folder)
    table = read_table(data_folder / LABELS, files)
    usable_names = [file for file in files if not UNUSABLE.search(file)]
    verdicts = check_audio(data_folder, usable_names, save_folder)
    ids, subsets = name_clips(files), {}
    for subset, names in split_files(files, table).items():
        clips = _list_clips(subset, names, table, ids, data_folder)
        subsets[subset] = select_clips(subset, clips, verdicts)
    if table:
        labeled = {name: subsets[name] for name in SUBSETS.values() if name in subsets}
        remedy = f"give paths relative to {data_folder}"
        require_usable(labeled, data_folder / LABELS, remedy)
    else:
        require_usable(subsets, data_folder, "check the files")

    classes = sorted({label for line in table.values() for label in line.labels})
    long = _count_long(subsets, max_seconds)
    if classes:
        _warn_about_classes(subsets, classes)
        logger.info("%d classes (add --num_classes %d)", len(classes), len(classes))
    write_results(
        save_folder,
        inputs,
        subsets,
        LabelSet(tuple(classes), tuple(classes)) if classes else None,
        counts={"longer_than_used": long},
        stale=STALE,
    )


if __name__ == "__main__":
    run_command_line(prepare_own_data, __doc__, "folder of recordings")
