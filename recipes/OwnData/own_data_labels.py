"""The labels of recordings, and the split or fold that each one belongs to.

They come from a table, or from the folders: ``dog/1.wav``, ``train/dog/1.wav``,
``fold1/dog/1.wav``, ``dog/train/1.wav``.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from own_data_paths import RecordingFinder
from own_data_recordings import UNUSABLE, composed, source_of
from own_data_table import Entry

from eat.data.prepare import abbreviate
from eat.errors import ManifestError
from eat.utils.text import clean

logger = logging.getLogger(__name__)

TRAIN, VALID, TEST = "train", "valid", "test"
_SPLITS = {
    TRAIN: ("train", "training", "tr", "trn"),
    VALID: ("valid", "validation", "val", "validate", "cv"),
    TEST: ("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_DEV = ("dev", "devel", "development")  # validation, or training if nothing else is
# Folders that are taken for classes only if that is asked for: day3, 2024-05-01.
_SERIES = re.compile(
    r"((day|date|week|month|year|session|sess|recordings?|rec|dis[ck]|site|station|part|"
    r"batch|chunk|tape|card|sd|device|mic|channel|folder|dir|set|raw|new)[ _-]*)?"
    r"(\d+|(19|20)\d\d([-_. ]?\d\d){1,2}.*)",
    re.IGNORECASE,
)
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


# -- from a table ----------------------------------------------------------------------


def label_from_table(
    path: Path, entries: Iterable[Entry], finder: RecordingFinder
) -> dict[str, Labeled]:
    """Return the labels of the recordings that a table names, in its order.

    The rows of one recording are joined. Raises `ManifestError` if they have different
    splits or folds, a split is unknown, or some rows have a fold and others have not.
    """
    entries = list(entries)
    words = {entry.split for entry in entries}
    lines: dict[str, int] = {}
    found: dict[str, Labeled] = {}
    for entry in entries:
        file, fault = finder.find(entry.file)
        file = file or entry.file
        split = parse_split(entry.split, words)
        where = f"{path}: line {entry.line}"
        if any(words) and not split:
            raise ManifestError(
                f"{where}: split '{entry.split}' (write train, valid or test)"
            )
        earlier = found.get(file, Labeled((), split, entry.fold))
        if (earlier.split, earlier.fold) != (split, entry.fold):
            raise ManifestError(
                f"{where}: '{entry.file}' has another split or fold than in line "
                f"{lines[file]} (a recording belongs to one)"
            )
        lines.setdefault(file, entry.line)
        labels = tuple(dict.fromkeys(earlier.labels + entry.labels))
        found[file] = Labeled(labels, split, entry.fold, fault)
    if any(line.fold for line in found.values()):
        for file, line in found.items():
            if not line.fold and line.split != TEST:
                raise ManifestError(
                    f"{path}: line {lines[file]}: no fold (give one, or split test)"
                )
    return found


def split_by_folders(
    path: Path, labeled: Mapping[str, Labeled]
) -> dict[str, Labeled] | None:
    """Take the splits from folders such as ``test/``, if all recordings have one."""
    usable = [file for file, line in labeled.items() if not line.fault]
    heads = {file.partition("/")[0] if "/" in file else "" for file in usable}
    if len(heads) < 2 or not all(parse_split(head, heads) for head in heads):
        return None
    logger.info("%s: splits are the folders %s", path, abbreviate(sorted(heads)))
    return {
        file: replace(line, split=parse_split(file.partition("/")[0], heads))
        for file, line in labeled.items()
    }


# -- from folders ----------------------------------------------------------------------


def label_from_folders(
    data_folder: Path, files: Iterable[str], required: bool
) -> dict[str, Labeled]:
    """Return the labels that the names of folders are; none if there are no classes.

    The first level names the class, or the second if the first has splits or folds.
    Unless `required`, most recordings must be in class folders, some together, whose
    names are not days or the like.

    Raises
    ------
    ManifestError
        If classes are required and there are less than two, or a name is not a label.
    """
    parts = {file: composed(file).split("/")[:-1] for file in files}
    special = [_levels(list(parts.values()), level) for level in (0, 1)]
    level = 1 if special[0] else 0
    classes = {file: clean(p[level]) for file, p in parts.items() if len(p) > level}
    counts = Counter(classes.values())
    if required and len(counts) < 2:
        raise ManifestError(
            f"{data_folder}: {len(counts)} class folders with recordings (at least "
            "two are needed, such as dog/1.wav and cat/1.wav)"
        )
    few = 2 * len(classes) <= len(parts) or set(counts.values()) == {1}
    series = all(_SERIES.fullmatch(n) and not n.isdigit() for n in counts)
    if len(counts) < 2 or ((few or series) and not required):
        if counts:
            line = "%s: the folders (%s) are not classes (are they? --labels folders)"
            logger.info(line, data_folder, abbreviate(sorted(counts)))
        return {}
    for name in counts:
        if UNUSABLE.search(name) or ";" in name:
            raise ManifestError(
                f"{data_folder}: class folder {name!r} (rename it, without $, ; and "
                "line breaks)"
            )
    logger.info(
        "%s: %d folders are the classes: %s (--labels none: recordings without labels)",
        *(data_folder, len(counts), abbreviate(sorted(counts))),
    )
    found = {}
    for file, folders in parts.items():
        if file not in classes:
            found[file] = Labeled((), fault="not in a class folder")
        else:
            word = folders[0] if level else folders[1] if special[1] else ""
            fold = _FOLD.fullmatch(word)
            split = parse_split(word, special[1 - level])
            name = classes[file]
            found[file] = Labeled((name,), split, str(int(fold[1])) if fold else "")
    return found


def _levels(paths: Iterable[list[str]], level: int) -> set[str]:
    """Return the folders of a level if they are splits or folds, else an empty set.

    Recordings above the folders have no class. Raises `ManifestError` if splits or
    folds are beside other folders at the first level.
    """
    lengths = {len(path) > level for path in paths}
    names = {path[level] for path in paths if len(path) > level}
    special = {n for n in names if parse_split(n, names) or _FOLD.fullmatch(n)}
    if level == 0 and len(special) > 1 and special != names:
        raise ManifestError(
            f"folder {min(names - special)!r}: is beside splits or folds, such as "
            f"{min(special)!r} (move it, or give --labels none or a table)"
        )
    if len(special) < 2 or special != names or (level and False in lengths):
        return set()
    return names


# -- splits and classes ----------------------------------------------------------------


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


def warn_about_names(classes: Iterable[str]) -> None:
    """Warn about classes whose names are equal but for case, spaces or zeros."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        key = re.sub(r"[\s_-]+", "", name.casefold())
        alike[re.sub(r"^0+(?=\d)|(?<=\d)\.0+$", "", key)].append(name)
    for names in alike.values():
        if len(names) > 1:
            quoted = " and ".join(map(repr, names))
            logger.warning("Classes %s are different (the same? rename one)", quoted)
