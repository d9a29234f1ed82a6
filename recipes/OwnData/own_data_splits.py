"""The split or fold of each recording: from words, from folders, or from a hash."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from own_data_recordings import composed, source_of

from eat.data.prepare import abbreviate

logger = logging.getLogger(__name__)

TRAIN, VALID, TEST = "train", "valid", "test"
_SPLITS = {
    TRAIN: ("train", "training", "tr", "trn"),
    VALID: ("valid", "validation", "val", "validate", "cv"),
    TEST: ("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_DEV = ("dev", "devel", "development")  # validation, or training if nothing else is
_FOLD = re.compile(r"fold[ _-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Labeled:
    """The labels of a recording; `fault` says why it cannot be used."""

    labels: tuple[str, ...]
    split: str = ""
    fold: str = ""
    fault: str | None = None


def parse_split(text: str, words: Iterable[str]) -> str:
    """Return the split that a text means, empty if none; `words` are all such texts."""
    word = text.strip().casefold()
    if word in _DEV:
        trains = any(other.strip().casefold() in _SPLITS[TRAIN] for other in words)
        return VALID if trains else TRAIN
    return _SPLIT_OF.get(word, "")


def parse_folders(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the split and the fold of each folder that means one of them."""
    names = set(names)
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        if fold := _FOLD.fullmatch(name):
            found[name] = "", str(int(fold[1]))
        elif split := parse_split(name, names):
            found[name] = split, ""
    if found:
        return found
    # Such as FSD50K.dev_audio and FSD50K.eval_audio: they differ in the split only.
    pieces = {name: re.split(r"[\W_]+", name.casefold()) for name in names}
    words = set(chain(*pieces.values()))
    rests = set()
    for name, parts in pieces.items():
        splits = [part for part in parts if parse_split(part, words)]
        rests.add(tuple("" if part in splits else part for part in parts))
        if len(splits) == 1:
            found[name] = parse_split(splits[0], words), ""
    return found if len(rests) == 1 else {}


def folders_of(files: Iterable[str]) -> dict[str, list[str]]:
    """Return the folders of each recording, without those that all are in.

    If all recordings are in the same folder, that one remains.
    """
    folders = {file: composed(file).split("/")[:-1] for file in files}
    shared = len(os.path.commonprefix(list(folders.values())))
    if shared and shared == max(map(len, folders.values())):
        shared -= 1
    return {file: names[shared:] for file, names in folders.items()}


def split_by_folders(
    path: Path, labeled: Mapping[str, Labeled]
) -> dict[str, Labeled] | None:
    """Take the splits from folders such as ``test/``, if all recordings have one."""
    usable = folders_of(file for file, line in labeled.items() if not line.fault)
    heads = {file: folders[0] if folders else "" for file, folders in usable.items()}
    parts = parse_folders(heads.values())
    if len(parts) < 2 or len(parts) < len(set(heads.values())):
        return None
    logger.info("%s: splits are the folders %s", path, abbreviate(sorted(parts)))
    found = {}
    for file, line in labeled.items():
        split, fold = parts[heads[file]] if file in heads else (TRAIN, "")
        found[file] = replace(line, split=split, fold=fold)
    return found


def _digest(source: str) -> int:
    return int.from_bytes(hashlib.sha256(source.encode()).digest(), "big")


def split_by_hash(
    labeled: Mapping[str, Labeled], same: Mapping[str, str]
) -> dict[str, Labeled]:
    """Put about a fifth of the recordings of each class into the test split.

    It is decided by the SHA-256 of the path, so that new recordings do not move others;
    but of a class that would be on one side only, one source is put on the other. All
    segments of a source are on one side. So are copies, unless a class has no others;
    `same` has the first of each.
    """
    contents: dict[str, set[str]] = defaultdict(set)
    for file, line in labeled.items():
        for label in line.labels:
            contents[label].add(same.get(file, file))
    source = {
        file: source_of(
            same.get(file, file)
            if all(len(contents[label]) > 1 for label in line.labels)
            else file
        )
        for file, line in labeled.items()
    }
    held = {name: _digest(name) % 5 == 0 for name in source.values()}
    sources: dict[str, set[str]] = defaultdict(set)
    for file, line in labeled.items():
        if not line.fault:
            for label in line.labels:
                sources[label].add(source[file])
    # The rarest classes first: what they move serves the others as well.
    moved: set[str] = set()
    for label in sorted(sources, key=lambda label: (len(sources[label]), label)):
        names, several = sources[label], len(contents[label]) > 1
        sides = {held[name] for name in names}
        if sides == {True} or (sides == {False} and several and len(names) > 1):
            if candidates := names - moved:
                first = min(candidates, key=_digest)
                held[first] = not held[first]
                moved.add(first)
    return {
        file: replace(line, split=TEST if line.labels and held[source[file]] else TRAIN)
        for file, line in labeled.items()
    }


def warn_about_sources(labeled: Mapping[str, Labeled]) -> None:
    """Warn about segments of one source in several splits or folds."""
    parts: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for file, entry in labeled.items():
        if not entry.fault:
            parts[source_of(file)].setdefault((entry.split, entry.fold), file)
    apart = [list(files.values()) for files in parts.values() if len(files) > 1]
    if apart:
        logger.warning(
            "Segments of %d recordings are in several splits or folds, which inflates "
            "scores, e.g. %s and %s",
            *(len(apart), *apart[0][:2]),
        )
