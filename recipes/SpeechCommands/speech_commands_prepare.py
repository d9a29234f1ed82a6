"""Prepare Speech Commands V2: write the manifests of its three subsets.

Usage: python speech_commands_prepare.py DATA_FOLDER SAVE_FOLDER
           [--part i/N | --merge N]

DATA_FOLDER is speech_commands_v0.02 or its parent, with 35 word folders of
<word>/<speaker>_nohash_<n>.wav, validation_list.txt and testing_list.txt. SAVE_FOLDER
receives train.csv (the clips in neither list), valid.csv, test.csv, labels.csv,
skipped.csv (unused files and the reasons) and summary.json (counts). Clips shorter than
a second are used: the paper's three subsets add up to all 105,829 clips.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from eat.data.audio_check import Verdict, check_audio
from eat.data.check_parts import check_part
from eat.data.corpus_folder import find_corpus, fingerprint, list_files
from eat.data.listed_files import ListedFiles
from eat.data.manifest import LabelSet, similar_names
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
from eat.utils.text import clean

logger = logging.getLogger(__name__)

FOLDER = "speech_commands_v0.02"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
CLASSES = 35
PAPER_CLIPS = {"train": 84_843, "valid": 9_981, "test": 11_005}
CLIP = re.compile(r"([^/_.][^/]*)/([^/]+)_nohash_\d+\.wav")


def _id(file: str, prefix: str) -> str:
    """Return ``<word>/<speaker>_nohash_<n>``, as file names occur in several words."""
    return file.removeprefix(prefix).removesuffix(".wav")


def _word(file: str) -> str:
    return file.split("/")[-2]


def _speaker(file: str) -> str:
    return file.split("/")[-1].partition("_nohash_")[0]


def _word_folders(corpus: Path) -> list[str]:
    """Return the folders with clips; ``_background_noise_``, for one, has none."""
    folders = filter(Path.is_dir, corpus.glob("[!_.]*"))
    return sorted(
        folder.name
        for folder in folders
        if any("_nohash_" in name for name in os.listdir(folder))
    )


def _read_list(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list with their numbers, as paths with forward slashes."""
    for number, row in read_table(path, ("file",), header="optional", exact=("file",)):
        line = row["file"]
        file = posixpath.normpath(line.strip().replace("\\", "/"))
        if not CLIP.fullmatch(file):
            raise ManifestError(
                f"{path}: line {number} is {line!r}, not "
                "<word>/<speaker>_nohash_<n>.wav (unpack the corpus again)"
            )
        yield number, file


def _read_lists(
    data_folder: Path, prefix: str, clips: Collection[str]
) -> tuple[dict[str, str], set[str]]:
    """Return the subset of each file in the two lists, which must be disjoint.

    Also returns the clips that may be copies of files in the lists and must not be
    trained on: those that have the same name in another spelling and, while a file is
    missing, those of the same speaker.
    """
    files = ListedFiles(clips)
    subset_of: dict[str, str] = {}
    copies: set[str] = set()
    takes = defaultdict(set)
    for file in clips:
        takes[_speaker(file)].add(file)
    for subset, name in LISTS.items():
        path = data_folder / prefix / name
        missing = []
        for number, line in _read_list(path):
            file = files.find(prefix + line) or prefix + line
            if subset_of.setdefault(file, subset) != subset:
                raise ManifestError(
                    f"{path}: line {number}, '{line}', is in {LISTS['valid']} as well "
                    "(unpack the corpus again)"
                )
            copies |= files.alike(file)
            if file not in clips:
                copies |= takes[_speaker(file)]
                missing.append(file)
        listed = sum(its == subset for its in subset_of.values())
        if not listed:
            raise ManifestError(f"{path}: no files in it (unpack the corpus again)")
        if clips and len(missing) == listed:
            raise ManifestError(
                f"{path}: none of its {listed} files is there, {abbreviate(missing, 1)}"
                " (unpack the corpus again)"
            )
    return subset_of, copies - subset_of.keys()


def _select_subsets(
    subset_of: Mapping[str, str], verdicts: Mapping[str, Verdict], prefix: str
) -> dict[str, Selection]:
    """Select the usable clips of each subset; warn if it has not its original size."""
    original = len(set(map(_word, subset_of))) == CLASSES
    subsets = {}
    for subset, expected in PAPER_CLIPS.items():
        files = [file for file, its_subset in subset_of.items() if its_subset == subset]
        clips = (Clip(_id(file, prefix), file, (_word(file),)) for file in files)
        in_paper = expected if original else None
        selection = select_clips(subset, clips, verdicts, in_paper)
        speakers = {_speaker(row.wav) for row in selection.rows}
        selection.counts["speakers"] = len(speakers)
        subsets[subset] = selection
        if len(files) != expected:
            line = "%s: %d clips listed; Speech Commands V2 has %d"
            logger.warning(line, subset, len(files), expected)
    return subsets


def _warn_about_shared_speakers(subset_of: Mapping[str, str]) -> None:
    """Warn if subsets share speakers; the original ones do not."""
    subsets_of = defaultdict(set)
    for file, subset in subset_of.items():
        subsets_of[_speaker(file)].add(subset)
    if shared := [speaker for speaker, its in subsets_of.items() if len(its) > 1]:
        line = "%d speakers are in several subsets, which inflates scores: %s"
        logger.warning(line, len(shared), abbreviate(shared))


def prepare_speech_commands(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    part: Part = WHOLE,
) -> None:
    """Write the manifests of Speech Commands V2, unless they are up to date.

    A part of several checks its share of the files; the last one writes the manifests.

    Raises `ManifestError` if the corpus is missing or not unpacked, a list is missing
    or malformed, a file is in both lists, the save folder is not writable, or no clip
    can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    prefix = find_corpus(data_folder, FOLDER, LISTS["valid"])
    folders = _word_folders(data_folder / prefix)
    found = list_files(data_folder, [prefix + folder for folder in folders])
    lists = [prefix + name for name in LISTS.values()]
    inputs = {"files": fingerprint(data_folder, [*lists, *found])}
    if up_to_date(save_folder, inputs):
        return

    make_save_folder(save_folder)
    clips = [file for file in found if CLIP.fullmatch(file.removeprefix(prefix))]
    words = sorted({_word(file) for file in clips})
    if len(set(map(clean, words))) < len(words):
        raise ManifestError(
            f"{data_folder / prefix}: word folders of the same name: "
            f"{abbreviate(map(repr, similar_names(words)))} (remove one)"
        )
    if len(words) != CLASSES:
        logger.warning("%d words; Speech Commands V2 has %d", len(words), CLASSES)
    held_out, copies = _read_lists(data_folder, prefix, set(clips))
    training = dict.fromkeys((file for file in clips if file not in copies), "train")
    subset_of = training | held_out
    _warn_about_shared_speakers(subset_of)
    if not check_part(data_folder, subset_of, save_folder, inputs, part):
        return
    verdicts = check_audio(data_folder, subset_of, save_folder)
    subsets = _select_subsets(subset_of, verdicts, prefix)
    require_usable(subsets, data_folder / prefix, "unpack the corpus again")
    unlisted = [file for file in found if file not in subset_of]
    reasons = dict.fromkeys(unlisted, "not named <speaker>_nohash_<n>.wav")
    reasons |= dict.fromkeys(copies, "may be a copy of a file for validation or test")
    write_results(
        save_folder,
        inputs,
        subsets,
        LabelSet(tuple(words), tuple(words)),
        unlisted=[Skipped(_id(f, prefix), f, "", reasons[f]) for f in unlisted],
    )


if __name__ == "__main__":
    run_command_line(prepare_speech_commands, __doc__, f"{FOLDER} or its parent")
