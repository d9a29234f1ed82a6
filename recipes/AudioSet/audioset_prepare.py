"""Prepare AudioSet: a copy of it in, manifests out.

Usage: ``python audioset_prepare.py DATA_FOLDER SAVE_FOLDER``

DATA_FOLDER holds AudioSet in one of three forms:

- the official lists (``class_labels_indices.csv`` and at least one of
  ``unbalanced_train_segments.csv``, ``balanced_train_segments.csv``,
  ``eval_segments.csv``) and, at any depth, audio files named after the YouTube ids;
- the parquet files of the Hugging Face copy, ``data/bal_train/*.parquet`` and so on,
  which are unpacked to SAVE_FOLDER, and ``class_labels_indices.csv``;
- official EAT manifests, ``train.tsv`` and ``eval.tsv`` with their ``.lbl``, and the
  list of classes.

SAVE_FOLDER receives one manifest per list, ``pretrain.csv`` (all training clips),
``labels.csv``, ``skipped.csv`` (each listed clip that is not used, and why),
``coverage.csv`` (clips listed and used by class), ``summary.txt`` (a page to read),
``summary.json`` (the counts) and ``checked.csv`` (what is known of each audio file, so
that none is opened twice).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from audioset_coverage import Counts, Coverage, count_clips, summary_text
from audioset_layouts import Clips, Layout, Listing
from audioset_lists import LABELS, LISTS, OfficialLists
from audioset_parquet import ParquetCopy
from audioset_tsv import TsvLists

from eat.audio.io import AudioInfo
from eat.data.manifest import (
    LABEL_COLUMNS,
    LabelSet,
    ManifestRow,
    read_labels,
    write_manifest,
)
from eat.data.prepare import (
    MISSING,
    Skipped,
    check_audio,
    make_save_folder,
    reason_to_skip,
    up_to_date,
    write_skipped,
)
from eat.errors import AudioError, ManifestError
from eat.utils.files import atomic_open

logger = logging.getLogger(__name__)

LAYOUTS = (ParquetCopy, OfficialLists, TsvLists)
FILES = ("labels.csv", "skipped.csv", "coverage.csv", "summary.txt")
TRAINING = ("unbalanced_train", "balanced_train")


def _find_layout(data_folder: Path, save_folder: Path) -> Layout:
    """Return the form in which the data folder holds AudioSet."""
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")
    for layout in LAYOUTS:
        if found := layout.find(data_folder, save_folder):
            return found
    raise ManifestError(
        f"{data_folder}: holds AudioSet in none of the three forms (put there either "
        f"{LABELS}, one of {', '.join(LISTS.values())}, and audio files; or {LABELS} "
        "and data/bal_train/*.parquet or the like from Hugging Face's "
        "agkphysics/AudioSet; or train.tsv, or eval.tsv with eval.lbl, of the official "
        "EAT code)"
    )


@dataclass(frozen=True)
class Sorter:
    """What decides whether a clip is used: its file, the labels, the shortest length.

    ``headers`` holds what checking the files gave, by file, ``labels`` the name of the
    list of the classes `known`.
    """

    listing: Listing
    headers: dict[str, AudioInfo | AudioError]
    known: LabelSet
    labels: str
    min_samples: int

    def reason(self, clip: str, labels: tuple[str, ...]) -> str | None:
        """Say why a clip cannot be used; None if it can."""
        file = self.listing.files.get(clip)
        if file is None:
            return MISSING
        if reason := reason_to_skip(self.headers[file], file, self.min_samples):
            return reason
        if clip in self.listing.faults:
            return self.listing.faults[clip]
        unknown = [label for label in labels if label not in self.known]
        return f"label not in {self.labels}: {' '.join(unknown)}" if unknown else None

    def sort_out(
        self, subset: str, clips: Clips
    ) -> tuple[list[ManifestRow], list[Skipped]]:
        """Divide clips into the rows of their manifest and skipped ones."""
        rows, skipped = [], []
        for clip, labels in clips.items():
            file = self.listing.files.get(clip, "")
            if reason := self.reason(clip, labels):
                skipped.append(Skipped(clip, file, subset, reason))
            else:
                seconds = self.headers[file].seconds
                rows.append(ManifestRow(clip, seconds, file, labels))
        return rows, skipped


def _usable_files(
    listing: Listing, headers: dict[str, AudioInfo | AudioError], min_samples: int
) -> Listing:
    """Let the first file of each clip count that can be used."""
    chosen = dict(listing.files)
    for clip, others in listing.others.items():
        files = (chosen[clip], *others)
        usable = (f for f in files if not reason_to_skip(headers[f], f, min_samples))
        chosen[clip] = next(usable, chosen[clip])
    return replace(listing, files=chosen)


def _with_pretrain(subsets: dict[str, Clips]) -> dict[str, Clips]:
    """Join the lists for training to ``pretrain``."""
    train: Clips = {}
    for subset in TRAINING:
        train |= subsets.get(subset, {})
    return subsets | {"pretrain": train} if train else subsets


def _last_outputs(save_folder: Path) -> list[str]:
    """Return the names of the manifests that the last run wrote."""
    try:
        summary = json.loads((save_folder / "summary.json").read_text("utf-8"))
        return [f"{subset}.csv" for subset in summary["subsets"]]
    except (OSError, ValueError, KeyError):
        return []


def _write_labels(path: Path, source: Path) -> None:
    """Copy the list of classes, with the line of column names that it may lack."""
    text = source.read_text("utf-8")
    header = ",".join(LABEL_COLUMNS)
    with atomic_open(path) as file:
        file.write(text if text.startswith(header) else f"{header}\n{text}")


def _write_all(
    save_folder: Path,
    layout: Layout,
    manifests: dict[str, list[ManifestRow]],
    skipped: list[Skipped],
    coverage: Coverage,
    page: str,
    summary: dict[str, object],
) -> None:
    """Write each file atomically, the summary last."""
    (save_folder / "summary.json").unlink(missing_ok=True)
    for subset in (*LISTS, "pretrain"):
        if subset in manifests:
            write_manifest(save_folder / f"{subset}.csv", manifests[subset])
        else:  # left over from a run with more lists
            (save_folder / f"{subset}.csv").unlink(missing_ok=True)
    _write_labels(save_folder / "labels.csv", layout.labels)
    write_skipped(save_folder / "skipped.csv", skipped)
    coverage.write(save_folder / "coverage.csv")
    with atomic_open(save_folder / "summary.txt") as file:
        file.write(page)
    with atomic_open(save_folder / "summary.json") as file:
        json.dump(summary, file, indent=2)


def _log_counts(subset: str, counts: Counts) -> None:
    line = "{listed} clips listed, {missing} missing, {skipped} skipped, {used} used"
    logger.info("%s: %s (%s h)", subset, line.format(**counts), counts["hours"])


def _log_left_aside(listing: Listing) -> dict[str, int]:
    """Say, and return, how many audio files are left aside."""
    aside = {"duplicates": listing.duplicates, "unlisted": listing.unlisted}
    line = "{duplicates} of clips that have another, {unlisted} of no listed clip"
    logger.info("audio files left aside: %s", line.format(**aside))
    return aside


def prepare_audioset(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    min_samples: int = 10000,
) -> None:
    """Write the manifests of AudioSet, unless they are there already.

    Nothing is done if lists, audio folders and `min_samples` are as in the last run
    (audio replaced in place goes unnoticed: delete ``summary.json`` then).

    Parameters
    ----------
    data_folder, save_folder : str or PathLike
        Corpus and results, see the top of this file.
    min_samples : int
        Clips with fewer samples, at the rate of their file, are skipped, as officially.

    Raises
    ------
    ManifestError
        If a folder or official file is missing or malformed, the save folder cannot be
        written, or no listed clip can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    layout = _find_layout(data_folder, save_folder)
    inputs = layout.inputs() | {"min_samples": min_samples}
    outputs = [*_last_outputs(save_folder), *FILES, *layout.outputs()]
    if up_to_date(save_folder, inputs, outputs):
        logger.info("%s: the manifests are up to date", save_folder)
        return

    make_save_folder(save_folder)
    logger.info("%s: %s", data_folder, layout)
    known = read_labels(layout.labels)
    listing = layout.read()
    files = [*listing.files.values(), *chain(*listing.others.values())]
    headers = check_audio(data_folder, files, save_folder / "checked.csv")
    listing = _usable_files(listing, headers, min_samples)
    sorter = Sorter(listing, headers, known, layout.labels.name, min_samples)
    manifests, skipped, counts, coverage = {}, [], {}, Coverage(known)
    for subset, clips in _with_pretrain(listing.subsets).items():
        rows, left = sorter.sort_out(subset, clips)
        manifests[subset] = rows
        counts[subset] = count_clips(subset, rows, left, headers)
        coverage.add(subset, clips, rows)
        # The clips of a joined list stand under the list they come from.
        skipped += left if subset in listing.subsets else []
        _log_counts(subset, counts[subset])
    if not any(manifests.values()):
        raise ManifestError(
            f"{data_folder}: {len(listing.files)} listed clips have a file and none of "
            "them can be used (name audio files <YouTube id>.wav or the like)"
        )
    page = summary_text(
        f"AudioSet in {data_folder}: {layout}", counts, skipped, coverage, listing
    )
    aside = _log_left_aside(listing)
    summary = {"subsets": counts, "files_left_aside": aside, "inputs": inputs}
    _write_all(save_folder, layout, manifests, skipped, coverage, page, summary)


def main() -> None:
    """Run `prepare_audioset` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help="folder with AudioSet")
    parser.add_argument("save_folder", help="folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_audioset(arguments.data_folder, arguments.save_folder)
    except ManifestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
