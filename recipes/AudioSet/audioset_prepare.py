"""Prepare AudioSet: write the manifests of its clips.

Usage: python audioset_prepare.py DATA_FOLDER SAVE_FOLDER [--part i/N | --merge N]

DATA_FOLDER contains AudioSet in one of three layouts:

- the official lists (class_labels_indices.csv and at least one of
  unbalanced_train_segments.csv, balanced_train_segments.csv, eval_segments.csv) and, at
  any depth, audio files named by YouTube ids;
- the parquet files of the Hugging Face copy, data/bal_train/*.parquet and so on, which
  are unpacked to SAVE_FOLDER, and class_labels_indices.csv;
- official EAT manifests, train.tsv and eval.tsv with their .lbl files, and the list of
  classes.

SAVE_FOLDER receives one manifest per list, pretrain.csv (all training clips),
labels.csv, skipped.csv (unused clips and the reasons), coverage.csv (clips listed and
used by class), summary.txt (a page to read), summary.json (counts) and checked.csv (a
cache, so that no audio file is opened twice).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from audioset_coverage import PAPER_CLIPS, count_classes, coverage_csv, summary_page
from audioset_layouts import Clips, Layout, Listing, video_of
from audioset_lists import LABELS, LISTS, OfficialLists
from audioset_parquet import ParquetCopy
from audioset_tsv import TsvLists

from eat.data.audio_check import Verdict, check_audio
from eat.data.check_parts import check_part
from eat.data.corpus_folder import refuse_archives, require_folder
from eat.data.manifest import LabelSet, read_labels
from eat.data.prepare import (
    Clip,
    Selection,
    make_save_folder,
    require_usable,
    run_command_line,
    select_clips,
    unusable,
    up_to_date,
    write_results,
)
from eat.errors import ManifestError
from eat.utils.parts import WHOLE, Part

logger = logging.getLogger(__name__)

LAYOUTS = (ParquetCopy, OfficialLists, TsvLists)
TRAINING = ("unbalanced_train", "balanced_train")
STALE = tuple(f"{subset}.csv" for subset in (*LISTS, "pretrain"))


def find_layout(data_folder: Path, save_folder: Path) -> Layout:
    """Return the layout of AudioSet in the data folder."""
    require_folder(data_folder)
    for layout in LAYOUTS:
        if found := layout.find(data_folder, save_folder):
            return found
    refuse_archives(data_folder.glob("*"))
    raise ManifestError(
        f"{data_folder}: no AudioSet in any of the three layouts (put there either "
        f"{LABELS}, one of {', '.join(LISTS.values())}, and audio files; or {LABELS} "
        "and data/bal_train/*.parquet or the like from agkphysics/AudioSet on Hugging "
        "Face; or train.tsv, or eval.tsv with eval.lbl, of the official EAT code)"
    )


def _with_pretrain(subsets: Mapping[str, Clips]) -> dict[str, Clips]:
    """Add the subset ``pretrain``: the clips of all lists for training."""
    joined: Clips = {}
    for subset in TRAINING:
        joined |= subsets.get(subset, {})
    return {**subsets, "pretrain": joined} if joined else dict(subsets)


def _choose_files(
    listing: Listing, verdicts: Mapping[str, Verdict], min_samples: int
) -> dict[str, str]:
    """Return the first usable file of each clip, or the first if none is usable."""
    chosen = dict(listing.files)
    for clip, others in listing.others.items():
        files = (chosen[clip], *others)
        usable = (file for file in files if not unusable(verdicts[file], min_samples))
        chosen[clip] = next(usable, chosen[clip])
    return chosen


def _find_faults(listing: Listing, classes: LabelSet, source: str) -> dict[str, str]:
    """Return why clips cannot be used in any subset, whatever is in their files.

    `source` is the name of the file that lists the classes. Raises `ManifestError` if
    none of a subset's labels is in it.
    """
    faults = dict(listing.faults)
    for subset, clips in listing.subsets.items():
        for clip, labels in clips.items():
            if not labels and subset in ("balanced_train", "eval"):
                faults.setdefault(clip, "no label")
            if unknown := [label for label in labels if label not in classes]:
                reason = f"label not in {source}: {' '.join(unknown)}"
                faults.setdefault(clip, reason)
        every = set(chain.from_iterable(clips.values()))
        if every and not any(label in classes for label in every):
            raise ManifestError(
                f"{subset}: labels such as {min(every)!r} are not in {source} (use "
                "the ids of its classes, separated by commas)"
            )
    return faults


def _select_subsets(
    subsets: Mapping[str, Clips],
    files: Mapping[str, str],
    faults: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
    min_samples: int,
) -> dict[str, Selection]:
    """Select the usable clips of each subset; those for evaluation only in ``eval``."""
    selections = {}
    held_out = set(map(video_of, subsets.get("eval", ())))
    for subset, listed in subsets.items():
        shared = faults
        if subset != "eval":
            both = [clip for clip in listed if video_of(clip) in held_out]
            if both and len(both) == len(listed):
                raise ManifestError(
                    f"{subset}: all {len(listed)} clips are in the evaluation list as "
                    "well (is it the same list twice?)"
                )
            shared = {**faults, **dict.fromkeys(both, "in the evaluation list as well")}
        clips = (
            Clip(clip, files.get(clip, ""), labels, shared.get(clip))
            for clip, labels in listed.items()
        )
        paper = PAPER_CLIPS.get(subset)
        selections[subset] = select_clips(subset, clips, verdicts, paper, min_samples)
    return selections


def prepare_audioset(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    min_samples: int = 10000,
    part: Part = WHOLE,
) -> None:
    """Write the manifests of AudioSet, unless they are up to date.

    A part of several checks its share of the files; the last one writes the manifests.
    Audio files that are replaced in place are not noticed: delete ``summary.json`` to
    check them again. `min_samples` is the minimum length at the rate of the file, as in
    the official code.

    Raises `ManifestError` if a folder or list is missing or malformed, the save folder
    is not writable, or no listed clip can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    layout = find_layout(data_folder, save_folder)
    inputs = layout.inputs() | {"min_samples": min_samples}
    if up_to_date(save_folder, inputs, layout.outputs()):
        return

    make_save_folder(save_folder)
    logger.info("%s: %s", data_folder, layout)
    unchecked = layout.unpack(part, inputs)
    if unchecked is None:
        return
    classes, listing = read_labels(layout.labels), layout.read()
    all_files = [*listing.files.values(), *chain(*listing.others.values())]
    if not check_part(data_folder, all_files, save_folder, inputs, unchecked):
        return
    verdicts = check_audio(data_folder, all_files, save_folder)
    files = _choose_files(listing, verdicts, min_samples)
    faults = _find_faults(listing, classes, layout.labels.name)
    listed = _with_pretrain(listing.subsets)
    subsets = _select_subsets(listed, files, faults, verdicts, min_samples)
    require_usable(subsets, data_folder, layout.remedy)

    unused = {"duplicates": listing.duplicates, "unlisted": listing.unlisted}
    line = "unused audio files: {duplicates} duplicates, {unlisted} of unlisted clips"
    logger.info(line.format(**unused))
    counts = count_classes(classes, listed, subsets)
    title = f"AudioSet in {data_folder}: {layout}"
    page = summary_page(title, subsets, counts, listing)
    write_results(
        save_folder,
        inputs,
        subsets,
        classes,
        counts={"files_left_aside": unused},
        texts={"coverage.csv": coverage_csv(counts), "summary.txt": page},
        stale=STALE,
    )


if __name__ == "__main__":
    run_command_line(prepare_audioset, __doc__, "folder with AudioSet")
