"""Prepare Speech Commands V2: folders of wavs and two lists in, manifests out.

Usage: ``python speech_commands_prepare.py DATA_FOLDER SAVE_FOLDER``

DATA_FOLDER is ``speech_commands_v0.02`` or its parent: 35 word folders with
``<word>/<speaker>_nohash_<n>.wav``, ``validation_list.txt`` and ``testing_list.txt``.
SAVE_FOLDER receives ``train.csv`` (the clips in neither list), ``valid.csv``,
``test.csv``, ``labels.csv``, ``skipped.csv`` (each file that is not used, and why) and
``summary.json`` (the counts).
Clips shorter than a second are used: the paper's three sets add up to all 105,829.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from eat.audio.io import AudioInfo
from eat.data.manifest import ManifestRow
from eat.data.prepare import (
    Skipped,
    abbreviate,
    check_listed,
    find_corpus,
    list_files,
    make_save_folder,
    up_to_date,
    write_prepared,
)
from eat.errors import ManifestError

logger = logging.getLogger(__name__)

FOLDER = "speech_commands_v0.02"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
CLASSES = 35
PAPER_CLIPS = {"train": 84_843, "valid": 9_981, "test": 11_005}
MIN_SAMPLES = 400  # one frame of 25 ms at 16 kHz
CLIP = re.compile(r"([^/_.][^/]*)/([^/]+)_nohash_\d+\.wav")
OUTPUTS = [*PAPER_CLIPS, "labels", "skipped"]


def _id(file: str, below: str) -> str:
    """Return ``<word>/<speaker>_nohash_<n>``; many words share the last part."""
    return file.removeprefix(below).removesuffix(".wav")


def _word(file: str) -> str:
    return file.split("/")[-2]


def _speaker(file: str) -> str:
    return file.split("/")[-1].partition("_nohash_")[0]


def _word_folders(corpus: Path) -> list[str]:
    """Return the folders with clips; ``_background_noise_`` and others have none."""
    folders = filter(Path.is_dir, corpus.glob("[!_.]*"))
    return sorted(
        folder.name
        for folder in folders
        if any("_nohash_" in name for name in os.listdir(folder))
    )


def _read_lists(data_folder: Path, below: str) -> dict[str, str]:
    """Read both lists; return the subset of each file, which is in one list only."""
    subset_of: dict[str, str] = {}
    for subset, name in LISTS.items():
        path = data_folder / below / name
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path}: {error} (unpack the corpus again)") from None
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            if not CLIP.fullmatch(line):
                raise ManifestError(
                    f"{path}: line {number} is '{line}' instead of "
                    "<word>/<speaker>_nohash_<n>.wav (unpack the corpus again)"
                )
            if subset_of.setdefault(below + line, subset) != subset:
                raise ManifestError(
                    f"{path}: line {number}, '{line}', is in {LISTS['valid']} too "
                    "(unpack the corpus again)"
                )
    return subset_of


def _warn_of_shared_speakers(subset_of: Mapping[str, str]) -> None:
    """Warn where sets share speakers, which the corpus's own do not."""
    sets = defaultdict(set)
    for file, subset in subset_of.items():
        sets[_speaker(file)].add(subset)
    if shared := [speaker for speaker, its in sets.items() if len(its) > 1]:
        line = "%d speakers are in several sets, scores flatter: %s"
        logger.warning(line, len(shared), abbreviate(shared))


def _make_rows(
    headers: Mapping[str, AudioInfo], subset_of: Mapping[str, str], below: str
) -> dict[str, list[ManifestRow]]:
    """Make the rows of each manifest."""
    manifests: dict[str, list[ManifestRow]] = {subset: [] for subset in PAPER_CLIPS}
    for file, info in headers.items():
        row = ManifestRow(_id(file, below), info.seconds, file, (_word(file),))
        manifests[subset_of[file]].append(row)
    return manifests


def _count(
    subset_of: Mapping[str, str], manifests: Mapping[str, list[ManifestRow]], words: int
) -> dict[str, object]:
    """Sum up each subset for the summary, log it in a line, warn of other counts."""
    if words != CLASSES:
        logger.warning("%d words; Speech Commands V2 has %d", words, CLASSES)
    subsets = {}
    listed = Counter(subset_of.values())
    for subset, in_paper in PAPER_CLIPS.items():
        counts = {
            "listed": listed[subset],
            "used": len(manifests[subset]),
            "used_in_paper": in_paper if words == CLASSES else None,
            "speakers": len({_speaker(row.wav) for row in manifests[subset]}),
        }
        subsets[subset] = counts
        line = "{listed} clips listed, {used} used, of {speakers} speakers"
        logger.info("%s: %s", subset, line.format(**counts))
        if listed[subset] != in_paper:
            line = "%s: %d clips listed; Speech Commands V2 has %d"
            logger.warning(line, subset, listed[subset], in_paper)
    return subsets


def prepare_speech_commands(
    data_folder: str | os.PathLike[str], save_folder: str | os.PathLike[str]
) -> None:
    """Write the manifests of Speech Commands V2, unless they are there already.

    Parameters
    ----------
    data_folder, save_folder : str or PathLike
        Corpus and results, see the top of this file.

    Raises
    ------
    ManifestError
        If the corpus is missing or not unpacked, a list missing or malformed, a file in
        both lists, the save folder cannot be written, or no clip can be used.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    below = find_corpus(data_folder, FOLDER, LISTS["valid"])
    make_save_folder(save_folder)
    folders = _word_folders(data_folder / below)
    found, facts = list_files(data_folder, [below + folder for folder in folders])
    inputs: dict[str, object] = {"corpus": below, "audio": facts}
    subset_of = _read_lists(data_folder, below)
    for name in LISTS.values():
        stat = (data_folder / below / name).stat()
        inputs[name] = [stat.st_size, stat.st_mtime_ns]
    if up_to_date(save_folder, inputs, [f"{name}.csv" for name in OUTPUTS]):
        logger.info("%s: the manifests are up to date", save_folder)
        return

    clips = [file for file in found if CLIP.fullmatch(file.removeprefix(below))]
    subset_of = dict.fromkeys(clips, "train") | subset_of
    listed = {f: (_id(f, below), subset) for f, subset in subset_of.items()}
    cache = save_folder / "checked.csv"
    headers, skipped = check_listed(data_folder, listed, clips, cache, MIN_SAMPLES)
    if not headers:
        raise ManifestError(
            f"{data_folder / below}: none of its {len(clips)} clips can be used "
            "(unpack the corpus again)"
        )
    strange = "not named <speaker>_nohash_<n>.wav"
    surplus = [file for file in found if file not in subset_of]
    skipped += [Skipped(_id(f, below), f, "", strange) for f in surplus]
    words = sorted({_word(file) for file in clips})
    _warn_of_shared_speakers(subset_of)
    manifests = _make_rows(headers, subset_of, below)
    counts = _count(subset_of, manifests, len(words))
    summary = {"subsets": counts, "inputs": inputs}
    write_prepared(save_folder, manifests, words, skipped, summary)


def main() -> None:
    """Run `prepare_speech_commands` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help=f"{FOLDER} or its parent")
    parser.add_argument("save_folder", help="folder for the manifests")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_speech_commands(arguments.data_folder, arguments.save_folder)
    except ManifestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
