"""Prepare AudioSet: official CSV lists and a folder of wavs in, manifests out.

Usage: ``python audioset_prepare.py DATA_FOLDER SAVE_FOLDER``

DATA_FOLDER holds the official lists (``class_labels_indices.csv`` and at least one of
``unbalanced_train_segments.csv``, ``balanced_train_segments.csv``,
``eval_segments.csv``) and ``audio/``, with ``<YouTube id>.wav`` at any depth.
SAVE_FOLDER receives one manifest per list, ``pretrain.csv`` (all training clips),
``labels.csv``, ``skipped.csv`` (each listed clip that is not used, and why) and
``summary.json`` (the counts).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from eat.audio.io import AudioError, AudioInfo, inspect_many
from eat.data.manifest import (
    LabelSet,
    ManifestError,
    ManifestRow,
    atomic_open,
    read_labels,
    write_manifest,
)

logger = logging.getLogger(__name__)

LABELS = "class_labels_indices.csv"
LISTS = {
    "unbalanced_train": "unbalanced_train_segments.csv",
    "balanced_train": "balanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
# How many of the clips that were once online the paper had.
PAPER_CLIPS = {"pretrain": 1_912_134, "balanced_train": 20_550, "eval": 18_884}
MISSING = "missing"

Clips = dict[str, tuple[str, ...]]  # label ids by clip id


class Skipped(NamedTuple):
    """A listed clip that no manifest holds, as a line of ``skipped.csv``."""

    id: str
    file: str
    subset: str
    reason: str


def _check_folders(data_folder: Path, save_folder: Path) -> dict[str, Path]:
    """Check the folders before any work; return the lists at hand, by subset."""
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")
    lists = {subset: data_folder / name for subset, name in LISTS.items()}
    lists = {subset: path for subset, path in lists.items() if path.is_file()}
    if not lists or not (data_folder / LABELS).is_file():
        raise ManifestError(
            f"{data_folder}: the official CSV files are not in it (put {LABELS} there "
            f"and at least one of {', '.join(LISTS.values())})"
        )
    try:
        save_folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=save_folder).close()
    except OSError as error:
        raise ManifestError(
            f"{save_folder}: cannot be written, {error.strerror} "
            "(choose another save_folder)"
        ) from None
    return lists


def _index_audio(data_folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Find the wavs below ``audio/``; of files with one name the first one counts.

    Returns the path below `data_folder` by clip id, and facts that change when files
    come or go.
    """
    files: dict[str, str] = {}
    total, newest = 0, 0.0
    for folder, subfolders, names in os.walk(data_folder / "audio", followlinks=True):
        subfolders.sort()
        newest = max(newest, os.stat(folder).st_mtime)
        below = Path(folder).relative_to(data_folder).as_posix()
        for name in sorted(names):
            if name.endswith(".wav"):
                total += 1
                files.setdefault(name.removesuffix(".wav"), f"{below}/{name}")
    if not files:
        raise ManifestError(
            f"{data_folder / 'audio'}: missing, or no .wav file in it "
            "(put the clips there as <YouTube id>.wav)"
        )
    duplicates = total - len(files)
    return files, {"files": total, "duplicates": duplicates, "newest_folder": newest}


def _is_done(save_folder: Path, inputs: dict[str, object]) -> bool:
    """Return whether the results of an earlier run on the same inputs are there."""
    try:
        summary = json.loads((save_folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return summary.get("inputs") == inputs and all(
        (save_folder / f"{name}.csv").is_file()
        for name in (*summary["subsets"], "labels", "skipped")
    )


def _read_list(path: Path) -> Clips:
    """Read an official list: rows ``id, start, end, "mid,mid"`` below comments."""
    clips = {}
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) != 4:
                raise ManifestError(
                    f"{path}: line {number} has {len(row)} fields instead of id, "
                    "start, end, labels (download the official list again)"
                )
            clips[row[0]] = tuple(filter(None, row[3].split(",")))
    return clips


def _read_subsets(lists: dict[str, Path]) -> dict[str, Clips]:
    """Read all lists, and join those for training to ``pretrain``."""
    subsets = {subset: _read_list(path) for subset, path in lists.items()}
    train = subsets.get("unbalanced_train", {}) | subsets.get("balanced_train", {})
    return subsets | {"pretrain": train} if train else subsets


@dataclass(frozen=True)
class Corpus:
    """What decides whether a clip is used: its file, the labels, the shortest length.

    ``files`` holds paths below the data folder by clip id, ``headers`` what inspecting
    those files gave, by path.
    """

    files: dict[str, str]
    headers: dict[str, AudioInfo | AudioError]
    known: LabelSet
    min_samples: int

    def reason_to_skip(self, clip: str, labels: tuple[str, ...]) -> str | None:
        """Say why a clip cannot be used; None if it can."""
        if clip not in self.files:
            return MISSING
        info = self.headers[self.files[clip]]
        if isinstance(info, AudioError):
            return f"unreadable: {str(info).rpartition(f'{self.files[clip]}: ')[2]}"
        if info.num_frames < self.min_samples:
            return f"too short: {info.num_frames} samples, {self.min_samples} needed"
        unknown = [label for label in labels if label not in self.known]
        return f"label not in {LABELS}: {' '.join(unknown)}" if unknown else None

    def sort_out(
        self, subset: str, clips: Clips
    ) -> tuple[list[ManifestRow], list[Skipped]]:
        """Divide clips into the rows of their manifest and skipped ones."""
        rows, skipped = [], []
        for clip, labels in clips.items():
            file = self.files.get(clip, "")
            if reason := self.reason_to_skip(clip, labels):
                skipped.append(Skipped(clip, file, subset, reason))
                continue
            rows.append(ManifestRow(clip, self.headers[file].seconds, file, labels))
        return rows, skipped

    def count(
        self, subset: str, rows: list[ManifestRow], skipped: list[Skipped]
    ) -> dict[str, object]:
        """Sum up a subset for the summary, and log it in a line."""
        infos = [self.headers[row.wav] for row in rows]
        missing = sum(clip.reason == MISSING for clip in skipped)
        counts = {
            "listed": len(rows) + len(skipped),
            "found": len(rows) + len(skipped) - missing,
            "missing": missing,
            "skipped": len(skipped) - missing,
            "used": len(rows),
            "used_in_paper": PAPER_CLIPS.get(subset),
            "hours": round(sum(info.seconds for info in infos) / 3600, 3),
            "sample_rates": Counter(info.sample_rate for info in infos),
            "channels": Counter(info.channels for info in infos),
        }
        line = (
            "{listed} clips listed, {missing} missing, {skipped} skipped, {used} used"
        )
        logger.info("%s: %s (%s h)", subset, line.format(**counts), counts["hours"])
        return counts


def _write_all(
    data_folder: Path,
    save_folder: Path,
    manifests: dict[str, list[ManifestRow]],
    skipped: list[Skipped],
    summary: dict[str, object],
) -> None:
    """Write each file atomically, the summary last."""
    (save_folder / "summary.json").unlink(missing_ok=True)
    for subset in (*LISTS, "pretrain"):
        if subset in manifests:
            write_manifest(save_folder / f"{subset}.csv", manifests[subset])
        else:  # left over from a run with more lists
            (save_folder / f"{subset}.csv").unlink(missing_ok=True)
    with atomic_open(save_folder / "labels.csv") as file:
        file.write((data_folder / LABELS).read_text("utf-8"))
    with atomic_open(save_folder / "skipped.csv") as file:
        csv.writer(file).writerows([Skipped._fields, *skipped])
    with atomic_open(save_folder / "summary.json") as file:
        json.dump(summary, file, indent=2)


def prepare_audioset(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    min_samples: int = 10000,
) -> None:
    """Write the manifests of AudioSet, unless they are there already.

    Nothing is done if lists, audio folders and `min_samples` are as in the last run
    (wavs replaced in place go unnoticed: delete ``summary.json`` then).

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
    lists = _check_folders(data_folder, save_folder)
    files, audio = _index_audio(data_folder)
    stats = {path.name: path.stat() for path in (data_folder / LABELS, *lists.values())}
    csvs = {name: [stat.st_size, stat.st_mtime] for name, stat in stats.items()}
    inputs = {"lists": csvs, "audio": audio, "min_samples": min_samples}
    if _is_done(save_folder, inputs):
        logger.info("%s: the manifests are up to date", save_folder)
        return

    known = read_labels(data_folder / LABELS)
    subsets = _read_subsets(lists)
    listed = set().union(*subsets.values())
    wanted = [file for clip, file in files.items() if clip in listed]
    infos = inspect_many([f"{data_folder}/{file}" for file in wanted])
    bar = tqdm(infos, total=len(wanted), unit="file", desc="headers", disable=None)
    headers = dict(zip(wanted, bar, strict=True))
    corpus = Corpus(files, headers, known, min_samples)
    manifests, skipped, counts = {}, [], {}
    for subset, clips in subsets.items():
        manifests[subset], left = corpus.sort_out(subset, clips)
        counts[subset] = corpus.count(subset, manifests[subset], left)
        # The clips of pretrain.csv stand under the list they come from.
        skipped += left if subset in LISTS else []
    if not any(manifests.values()):
        raise ManifestError(
            f"{data_folder / 'audio'}: it holds {len(wanted)} listed clips and none of "
            "them can be used (name the files <YouTube id>.wav)"
        )
    summary = {"subsets": counts, "inputs": inputs}
    _write_all(data_folder, save_folder, manifests, skipped, summary)


def main() -> None:
    """Run `prepare_audioset` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help="folder with the official lists and audio/")
    parser.add_argument("save_folder", help="folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_audioset(arguments.data_folder, arguments.save_folder)
    except ManifestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
