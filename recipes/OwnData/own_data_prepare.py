"""Prepare any folder of recordings: manifests out, no code to write.

Usage: ``python own_data_prepare.py DATA_FOLDER SAVE_FOLDER``

DATA_FOLDER holds wav, flac, ogg or mp3 files at any depth; hidden files are ignored.
A ``labels.csv`` in it is optional: a CSV file with the columns ``file`` (path below
DATA_FOLDER), ``labels`` or ``label`` (class names, several joined by ``;``) and, if you
like, ``split`` (``train`` or ``eval``). Without ``split``, about a fifth of the files
is for evaluation, those whose path has a SHA-256 divisible by five: new files never
move old ones. Give ``split`` where several files come from one source, such as a
speaker or a long recording: all of them belong on one side.

SAVE_FOLDER receives ``pretrain.csv`` (all recordings but those for evaluation), with
labels also ``balanced_train.csv``, ``eval.csv`` (the labeled ones) and ``labels.csv``
(the classes); ``skipped.csv`` (what is not used, and why) and ``summary.json``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from own_data_labels import SUBSETS, Labeled, read_table
from own_data_recordings import LABELS, UNUSABLE, find_recordings

from eat.audio.frontend import SAMPLE_RATE, WINDOW
from eat.audio.io import AudioInfo
from eat.data.manifest import LABEL_COLUMNS, ManifestRow, write_manifest
from eat.data.prepare import (
    MISSING,
    Skipped,
    abbreviate,
    check_audio,
    make_save_folder,
    reason_to_skip,
    up_to_date,
    write_skipped,
)
from eat.errors import AudioError, ManifestError
from eat.utils.files import atomic_open

logger = logging.getLogger(__name__)

PRETRAIN = "pretrain"

Clips = dict[str, tuple[str, ...]]  # labels by file


def name_clips(files: list[str]) -> dict[str, str]:
    """Return a unique id by file: its path, without suffix unless two would clash."""
    stems = {file: os.path.splitext(file)[0] for file in files}
    taken = Counter([*stems.values(), *files])
    return {file: stem if taken[stem] == 1 else file for file, stem in stems.items()}


def divide(files: list[str], table: dict[str, Labeled]) -> dict[str, Clips]:
    """Return the subsets that have files at all, each as labels by file."""
    subsets = {
        subset: {f: line.labels for f, line in table.items() if line.subset == subset}
        for subset in SUBSETS.values()
    }
    subsets[PRETRAIN] = {
        file: table[file].labels if file in table else ()
        for file in files
        if file not in subsets[SUBSETS["eval"]]
    }
    return {subset: clips for subset, clips in subsets.items() if clips}


@dataclass(frozen=True)
class Recordings:
    """What decides whether a recording is used, and its id.

    ``ids`` and ``verdicts`` (what checking gave) are by path below `folder`.
    """

    folder: Path
    ids: dict[str, str]
    verdicts: dict[str, AudioInfo | AudioError]

    def reason(self, subset: str, file: str, labels: tuple[str, ...]) -> str | None:
        """Say why a recording cannot be used; None if it can."""
        if file not in self.ids:
            there = (self.folder / file).is_file()
            return "hidden, or not a wav, flac, ogg or mp3 file" if there else MISSING
        if UNUSABLE.search(file):
            return "its name holds $ or a character that is no text (rename it)"
        if subset != PRETRAIN and not labels:
            return f"no label in {LABELS}"
        info = self.verdicts[file]
        rate = 0 if isinstance(info, AudioError) else info.sample_rate
        # One window of the front end.
        return reason_to_skip(info, file, math.ceil(WINDOW * rate / SAMPLE_RATE))

    def sort_out(
        self, subset: str, clips: Clips
    ) -> tuple[list[ManifestRow], list[Skipped]]:
        """Divide files into the rows of their manifest and skipped ones."""
        rows, skipped = [], []
        for file, labels in clips.items():
            if reason := self.reason(subset, file, labels):
                name = file.encode("utf-8", "backslashreplace").decode()
                skipped.append(Skipped(name, name, subset, reason))
            else:
                seconds = self.verdicts[file].seconds
                rows.append(ManifestRow(self.ids[file], seconds, file, labels))
        return rows, skipped

    def count(
        self, subset: str, rows: list[ManifestRow], skipped: list[Skipped]
    ) -> dict[str, object]:
        """Sum up a subset for the summary, and log it in a line."""
        infos = [self.verdicts[row.wav] for row in rows]
        missing = sum(clip.reason == MISSING for clip in skipped)
        counts = {
            "listed": len(rows) + len(skipped),
            "found": len(rows) + len(skipped) - missing,
            "missing": missing,
            "skipped": len(skipped) - missing,
            "used": len(rows),
            "used_in_paper": None,
            "hours": round(sum(info.seconds for info in infos) / 3600, 3),
            "sample_rates": Counter(info.sample_rate for info in infos),
            "channels": Counter(info.channels for info in infos),
        }
        line = "{listed} files, {missing} missing, {skipped} skipped, {used} used"
        logger.info("%s: %s (%s h)", subset, line.format(**counts), counts["hours"])
        return counts


def _sort_all(
    recordings: Recordings, subsets: dict[str, Clips]
) -> tuple[dict[str, list[ManifestRow]], dict[str, Skipped], dict[str, dict]]:
    """Return manifests and counts by subset, and what is skipped by file."""
    manifests, skipped, counts = {}, {}, {}
    for subset, clips in subsets.items():
        manifests[subset], left = recordings.sort_out(subset, clips)
        counts[subset] = recordings.count(subset, manifests[subset], left)
        # What pretrain.csv lacks as well stands under its labeled subset.
        skipped |= {clip.file: clip for clip in left if clip.file not in skipped}
    return manifests, skipped, counts


def _warn(
    manifests: dict[str, list[ManifestRow]], classes: list[str], max_seconds: float
) -> int:
    """Log what the user may not expect; return the number of long recordings."""
    rows = {row.wav: row for row in chain.from_iterable(manifests.values())}.values()
    long = sum(row.seconds > max_seconds for row in rows)
    if long:
        logger.warning(
            "%d of %d recordings are longer than %g s: only their beginning is used "
            "(cut them beforehand, e.g. ffmpeg -i LONG.wav -f segment -segment_time 10 "
            "PART%%03d.wav)",
            *(long, len(rows), max_seconds),
        )
    for split, subset in SUBSETS.items():
        found = {label for row in manifests.get(subset, ()) for label in row.labels}
        if without := [name for name in classes if name not in found]:
            logger.warning(
                "%d of %d classes have no clip for %s, e.g. '%s' (see split in %s)",
                *(len(without), len(classes), split, without[0], LABELS),
            )
    return long


def _fingerprint(data_folder: Path, files: list[str]) -> str:
    """Return a text that changes when a file comes, goes or is written again."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(data_folder / file)
            stamp = f"/{status.st_size}/{status.st_mtime_ns}/"
        except OSError:  # a link to nowhere; the check will say so
            stamp = "//"
        digest.update(os.fsencode(file) + stamp.encode())
    return digest.hexdigest()


def _write_all(
    save_folder: Path,
    manifests: dict[str, list[ManifestRow]],
    classes: list[str],
    skipped: list[Skipped],
    summary: dict[str, object],
) -> None:
    """Write each file atomically, the summary last."""
    # What an earlier run wrote and this one may not.
    manifest_names = (f"{subset}.csv" for subset in (PRETRAIN, *SUBSETS.values()))
    for name in ("summary.json", LABELS, *manifest_names):
        (save_folder / name).unlink(missing_ok=True)
    for subset, rows in manifests.items():
        write_manifest(save_folder / f"{subset}.csv", rows)
    if classes:
        with atomic_open(save_folder / LABELS) as file:
            rows = ((index, name, name) for index, name in enumerate(classes))
            csv.writer(file).writerows([LABEL_COLUMNS, *rows])
    write_skipped(save_folder / "skipped.csv", skipped)
    with atomic_open(save_folder / "summary.json") as file:
        json.dump(summary, file, indent=2)


def prepare_own_data(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    max_seconds: float = 10.26,
) -> None:
    """Write the manifests of a folder of recordings, unless they are there already.

    Parameters
    ----------
    data_folder, save_folder : str or PathLike
        Recordings and results, see the top of this file.
    max_seconds : float
        How much of a recording is used: longer ones are counted and reported.

    Raises
    ------
    ManifestError
        If a folder is missing, holds no recording that can be used or cannot be
        written, or ``labels.csv`` is malformed.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    files = find_recordings(data_folder, save_folder)
    make_save_folder(save_folder)
    own = data_folder / LABELS
    table = read_table(own, files) if own.is_file() else {}
    classes = sorted({label for line in table.values() for label in line.labels})
    subsets = divide(files, table)
    inputs = {
        "recordings": len(files),
        "fingerprint": _fingerprint(data_folder, files + [LABELS] * bool(table)),
        "max_seconds": max_seconds,
    }
    outputs = [f"{name}.csv" for name in (*subsets, "skipped")]
    if up_to_date(save_folder, inputs, outputs + [LABELS] * bool(table)):
        logger.info("%s: the manifests are up to date", save_folder)
        return

    openable = [file for file in files if not UNUSABLE.search(file)]
    verdicts = check_audio(data_folder, openable, save_folder / "checked.csv")
    recordings = Recordings(data_folder, name_clips(files), verdicts)
    manifests, skipped, counts = _sort_all(recordings, subsets)
    needed = SUBSETS.values() if table else manifests
    if not any(manifests.get(subset) for subset in needed):
        first = next(iter(skipped.values()))
        remedy = "give paths below that folder" if table else "give other files"
        raise ManifestError(
            f"{own if table else data_folder}: none of the recordings can be used, "
            f"'{first.file}': {first.reason} ({remedy})"
        )
    longer = _warn(manifests, classes, max_seconds)
    if classes:
        logger.info("%d classes (add --num_classes %d)", len(classes), len(classes))
    summary = {"subsets": counts, "longer_than_used": longer, "inputs": inputs}
    _write_all(save_folder, manifests, classes, list(skipped.values()), summary)
    if skipped:
        places = (abbreviate(skipped), save_folder / "skipped.csv")
        logger.warning("%d left out: %s (why: %s)", len(skipped), *places)


def main() -> None:
    """Run `prepare_own_data` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "data_folder", help="folder of recordings, with labels.csv or not"
    )
    parser.add_argument("save_folder", help="folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_own_data(arguments.data_folder, arguments.save_folder)
    except ManifestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
