"""AudioSet as the official EAT code lists it: ``train.tsv`` and ``train.lbl``.

The first line of a tsv is the folder of the audio, the others are ``path<TAB>samples``;
a line of an lbl is ``id<TAB>label,label``. Pre-training has no lbl.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from audioset_layouts import (
    Clips,
    Listing,
    clip_of,
    count_audio,
    find_files,
    split_labels,
    stamps,
)
from audioset_lists import LABELS, official_labels

from eat.errors import ManifestError

LABEL_LISTS = (LABELS, "label_descriptors.csv", "labels.csv")
TRAIN, EVAL = "train.tsv", ("eval.tsv", "valid.tsv")
# The official list of the balanced clips has 22,160; a longer one is AudioSet-2M.
MOST_BALANCED_CLIPS = 30_000
_HDF5 = (".h5/", ".hdf5/")


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path}: cannot be read as text, {error} (write the file again)"
        ) from None


def _read_tsv(path: Path) -> tuple[str, list[str]]:
    """Return the folder and the paths below it that a tsv lists."""
    root, *lines = _lines(path) or [""]
    if not root.strip() or "\t" in root:
        raise ManifestError(
            f"{path}: line 1 is '{root}' instead of the folder of the audio "
            "(write that folder above the clips)"
        )
    names = []
    for number, line in enumerate(lines, 2):
        # The official code splits at any white space.
        *name, samples = line.rsplit(maxsplit=1) or [""]
        if not name or not samples.isdecimal():
            raise ManifestError(
                f"{path}: line {number} is '{line}' instead of path<TAB>samples "
                "(write the file again)"
            )
        if any(mark in name[0] for mark in _HDF5):
            raise ManifestError(
                f"{path}: line {number} names a clip inside an HDF5 file, '{name[0]}' "
                "(unpack the clips to audio files and list these)"
            )
        names += name
    return root.strip(), names


def _read_lbl(path: Path) -> Clips:
    """Return the labels by clip id."""
    clips = {}
    for number, line in enumerate(_lines(path), 1):
        items = line.split()
        if len(items) != 2:
            raise ManifestError(
                f"{path}: line {number} is '{line}' instead of id<TAB>label,label "
                "(write the file again)"
            )
        clips[items[0]] = split_labels(items[1])
    return clips


def _pair(stems: list[str], labels: Clips) -> list[str | None]:
    """Find the id in the lbl of each file name; None where there is none."""
    ids = [clip_of(stem, labels) for stem in stems]
    if len(labels) == len(stems) and not any(ids):
        return list(labels)  # line by line, as the official training pairs them
    return ids


def _training_subset(clips: Clips, labeled: bool) -> str:
    """Say what ``train.tsv`` lists: the file itself does not."""
    if not labeled:
        return "pretrain"
    balanced = len(clips) <= MOST_BALANCED_CLIPS
    return "balanced_train" if balanced else "unbalanced_train"


@dataclass(frozen=True)
class TsvLists:
    """The official EAT manifests.

    Attributes
    ----------
    data_folder, save_folder : Path
        Corpus and results.
    tsvs : tuple of Path
        The manifests.
    labels : Path
        The list of classes.
    """

    data_folder: Path
    save_folder: Path
    tsvs: tuple[Path, ...]
    labels: Path

    @classmethod
    def find(cls, data_folder: Path, save_folder: Path) -> TsvLists | None:
        """Return this layout if the data folder has it.

        Parameters
        ----------
        data_folder, save_folder : Path
            Corpus and results.

        Returns
        -------
        TsvLists or None
            None if no tsv is there.
        """
        train = data_folder / TRAIN
        evals = [data_folder / name for name in EVAL]
        # Scores need labels; folders for pre-training may hold a valid.tsv without.
        evals = [path for path in evals if path.with_suffix(".lbl").is_file()]
        tsvs = [path for path in (train, *evals[:1]) if path.is_file()]
        if not tsvs:
            return None
        labels = [data_folder / name for name in LABEL_LISTS]
        labels = [path for path in labels if path.is_file()]
        if not labels:
            labels = [official_labels(data_folder)]  # says where to get it
        return cls(data_folder, save_folder, tuple(tsvs), labels[0])

    def __str__(self) -> str:
        return f"official EAT manifests ({', '.join(path.name for path in self.tsvs)})"

    def inputs(self) -> dict[str, object]:
        """Return sizes and times of the manifests, and how much audio there is."""
        labels = [path.with_suffix(".lbl") for path in self.tsvs]
        labels = [path for path in labels if path.is_file()]
        audio = {}
        for tsv in self.tsvs:
            root, names = _read_tsv(tsv)
            if (self.data_folder / root).is_dir():
                folders = {os.path.dirname(name) for name in names}
                paths = [self.data_folder / root / folder for folder in folders]
                changes = [path.stat().st_mtime for path in paths if path.is_dir()]
                audio[tsv.name] = [len(changes), max(changes, default=0.0)]
            else:
                audio[tsv.name] = count_audio(self.data_folder, self.save_folder)
        return {"lists": stamps(self.labels, *self.tsvs, *labels), "audio": audio}

    def _place(self, tsv: Path, root: str, names: dict[str, str]) -> Listing:
        """Say where the files lie: below the root, or else below the data folder."""
        if (self.data_folder / root).is_dir():
            folder = os.path.abspath(self.data_folder / root)
            below = os.path.relpath(folder, self.data_folder)
            if not below.startswith(os.pardir):
                folder = "" if below == os.curdir else below
            files = {clip: os.path.join(folder, name) for clip, name in names.items()}
            return Listing({}, files)
        clips: Clips = dict.fromkeys(names, ())
        found = find_files(self.data_folder, self.save_folder, {"": clips})
        if not found.files:
            raise ManifestError(
                f"{tsv}: its folder '{root}' does not exist here, and none of its "
                f"clips lies below {self.data_folder} (correct line 1 of the file)"
            )
        return found

    def _read_one(self, tsv: Path) -> Listing:
        """Read a manifest and its labels, and find its clips."""
        root, names = _read_tsv(tsv)
        stems = [os.path.splitext(os.path.basename(name))[0] for name in names]
        lbl = tsv.with_suffix(".lbl")
        labels = _read_lbl(lbl) if lbl.is_file() else dict.fromkeys(stems, ())
        ids = _pair(stems, labels)
        if not any(ids):
            raise ManifestError(
                f"{tsv}: none of its clips has a line in {lbl.name} "
                "(put the lbl that belongs to it there)"
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
        placed = self._place(tsv, root, paths)
        duplicates = len(names) - len(clips) + placed.duplicates
        subset = "eval" if tsv.name in EVAL else _training_subset(clips, lbl.is_file())
        return Listing({subset: clips}, placed.files, faults, placed.others, duplicates)

    def outputs(self) -> list[str]:
        """Return none: the audio is used where it lies."""
        return []

    def read(self) -> Listing:
        """Read the manifests and their labels, and find their clips."""
        parts = [self._read_one(tsv) for tsv in self.tsvs]
        return Listing(
            subsets={k: v for part in parts for k, v in part.subsets.items()},
            files={k: v for part in parts for k, v in part.files.items()},
            faults={k: v for part in parts for k, v in part.faults.items()},
            others={k: v for part in parts for k, v in part.others.items()},
            duplicates=sum(part.duplicates for part in parts),
        )
