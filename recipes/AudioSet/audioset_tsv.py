"""AudioSet as the official EAT code lists it: ``train.tsv`` and ``train.lbl``.

The first line of a tsv file is the audio folder, the others are ``path<TAB>samples``; a
line of an lbl file is ``id<TAB>label,label``. Pre-training needs no lbl file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from audioset_layouts import (
    Clips,
    Layout,
    Listing,
    clip_of,
    count_audio,
    find_files,
    split_labels,
)
from audioset_lists import LABELS, official_labels, stamp_lists

from eat.data.listed_files import existing_path
from eat.errors import ManifestError
from eat.utils.text import Line, read_lines

LABEL_LISTS = (LABELS, "label_descriptors.csv", "labels.csv")
TRAIN, EVAL = "train.tsv", ("eval.tsv", "valid.tsv")
# The official balanced list has 22,160 clips; a longer one is AudioSet-2M.
MOST_BALANCED_CLIPS = 30_000
_HDF5 = (".h5/", ".hdf5/")


def _read_tsv(path: Path) -> tuple[str, list[str]]:
    """Return the folder and the relative paths that a tsv file lists."""
    (_, root), *lines = read_lines(path) or [Line(1, "")]
    if not root or "\t" in root:
        raise ManifestError(
            f"{path}: line 1 is '{root}', not the audio folder "
            "(write the folder into the first line)"
        )
    names = []
    for number, line in lines:
        # The official code splits at any whitespace.
        *name, samples = line.rsplit(maxsplit=1) or [""]
        if not name or not samples.isdecimal():
            raise ManifestError(
                f"{path}: line {number} is '{line}', not path<TAB>samples "
                "(create the file again)"
            )
        if any(mark in name[0] for mark in _HDF5):
            raise ManifestError(
                f"{path}: line {number} is a clip in an HDF5 file, '{name[0]}' "
                "(unpack the clips to audio files and list those)"
            )
        names += name
    return root, names


def _read_lbl(path: Path) -> Clips:
    """Return the labels by clip id."""
    clips: Clips = {}
    for number, line in read_lines(path):
        items = re.sub(r"\s*[,;]\s*", ",", line).split()
        if len(items) != 2:
            raise ManifestError(
                f"{path}: line {number} is '{line}', not id<TAB>label,label "
                "(create the file again)"
            )
        clip, labels = items[0], split_labels(items[1])
        if clips.setdefault(clip, labels) != labels:
            raise ManifestError(
                f"{path}: line {number}: '{clip}' has other labels on an earlier line "
                "(create the file again)"
            )
    return clips


def _pair(stems: list[str], labels: Clips) -> list[str | None]:
    """Return the id in the lbl file for each file name, None if there is none."""
    ids = [clip_of(stem, labels) for stem in stems]
    if len(labels) == len(stems) and not any(ids):
        return list(labels)  # line by line, as in the official training code
    return ids


def _training_subset(clips: Clips, labeled: bool) -> str:
    """Return which subset ``train.tsv`` lists; the file itself does not say so."""
    if not labeled:
        return "pretrain"
    balanced = len(clips) <= MOST_BALANCED_CLIPS
    return "balanced_train" if balanced else "unbalanced_train"


@dataclass(frozen=True)
class TsvLists(Layout):
    """The official EAT manifests."""

    tsvs: tuple[Path, ...]

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> TsvLists | None:
        """Return this layout if there is a tsv file."""
        train = data_folder / TRAIN
        evals = [data_folder / name for name in EVAL]
        # Scores need labels; folders for pre-training may have a valid.tsv without.
        evals = [path for path in evals if path.with_suffix(".lbl").is_file()]
        tsvs = [path for path in (train, *evals[:1]) if path.is_file()]
        if not tsvs:
            return None
        candidates = (data_folder / name for name in LABEL_LISTS)
        labels = next((path for path in candidates if path.is_file()), None)
        labels = labels or official_labels(data_folder)  # or where to download it
        return cls(data_folder, save_folder, labels, tuple(tsvs))

    def __str__(self) -> str:
        return f"official EAT manifests ({', '.join(path.name for path in self.tsvs)})"

    def inputs(self) -> dict[str, object]:
        """Return a checksum of the manifests, and how much audio there is."""
        audio: dict[str, object] = {}
        for tsv in self.tsvs:
            root, names = _read_tsv(tsv)
            folder = self.data_folder / existing_path(self.data_folder, root)
            if folder.is_dir():
                parents = {os.path.dirname(existing_path(folder, n)) for n in names}
                paths = [folder / parent for parent in parents]
                changes = [path.stat().st_mtime for path in paths if path.is_dir()]
                audio[tsv.name] = [len(changes), max(changes, default=0.0)]
            else:
                audio[tsv.name] = count_audio(self.data_folder, self.save_folder)
        lbls = [path.with_suffix(".lbl") for path in self.tsvs]
        lists = stamp_lists(self.data_folder, self.labels, *self.tsvs, *lbls)
        return {"lists": lists, "audio": audio}

    def read(self) -> Listing:
        """Read the manifests and their labels, and find their clips."""
        listing = Listing({}, {})
        duplicates = 0
        for tsv in self.tsvs:
            part = self._read_one(tsv)
            for name in ("subsets", "files", "others", "faults"):
                getattr(listing, name).update(getattr(part, name))
            duplicates += part.duplicates
        return replace(listing, duplicates=duplicates)

    def _read_one(self, tsv: Path) -> Listing:
        """Read a manifest and its labels, and find its clips."""
        root, names = _read_tsv(tsv)
        stems = [PurePosixPath(name.replace("\\", "/")).stem for name in names]
        lbl = tsv.with_suffix(".lbl")
        labels: Clips = dict.fromkeys(stems, ())
        if lbl.is_file():
            labels = _read_lbl(lbl)
        ids = _pair(stems, labels)
        if not any(ids):
            raise ManifestError(
                f"{tsv}: none of its clips is in {lbl.name} (use the lbl file that "
                "belongs to it)"
            )
        clips: Clips = {}
        paths: dict[str, str] = {}
        faults: dict[str, str] = {}
        for clip, stem, name in zip(ids, stems, names, strict=True):
            if clip is None:
                clip = stem
                faults[clip] = f"no line in {lbl.name}"
            clips.setdefault(clip, labels.get(clip, ()))
            paths.setdefault(clip, name)
        found = self._find_clips(tsv, root, paths)
        duplicates = len(names) - len(clips) + found.duplicates
        subset = "eval" if tsv.name in EVAL else _training_subset(clips, lbl.is_file())
        return Listing({subset: clips}, found.files, found.others, faults, duplicates)

    def _find_clips(self, tsv: Path, root: str, names: dict[str, str]) -> Listing:
        """Return the files of clips in `root`, or anywhere in the data folder."""
        path = os.path.join(self.data_folder, existing_path(self.data_folder, root))
        if os.path.isdir(path):
            folder = os.path.abspath(path)
            relative = os.path.relpath(folder, self.data_folder)
            if not relative.startswith(os.pardir):
                folder = "" if relative == os.curdir else relative
            files = {
                clip: os.path.join(folder, existing_path(path, name))
                for clip, name in names.items()
            }
            return Listing({}, files)
        clips: Clips = dict.fromkeys(names, ())
        found = find_files(self.data_folder, self.save_folder, {"": clips})
        if not found.files:
            raise ManifestError(
                f"{tsv}: its folder '{root}' does not exist, and none of its clips is "
                f"in {self.data_folder} (correct the first line of the file)"
            )
        return found
