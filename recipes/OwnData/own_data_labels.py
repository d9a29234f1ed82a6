"""The labels of recordings, and the split or fold that each one belongs to.

They come from a table, or from the folders: ``dog/1.wav``, ``train/dog/1.wav``,
``fold1/dog/1.wav``, ``dog/train/1.wav``.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from own_data_paths import RecordingFinder
from own_data_recordings import UNUSABLE
from own_data_splits import TEST, Labeled, folders_of, parse_folders, parse_split
from own_data_table import Entry

from eat.data.prepare import abbreviate
from eat.errors import ManifestError
from eat.utils.text import clean

logger = logging.getLogger(__name__)

# Folders that are taken for classes only if that is asked for: day3, 2024-05-01.
_SERIES = re.compile(
    r"((day|date|week|month|year|session|sess|recordings?|rec|dis[ck]|site|station|part|"
    r"batch|chunk|tape|card|sd|device|mic|channel|actor|speaker|subject|folder|dir|set|"
    r"raw|new)[ _-]*)?"
    r"(\d+|(19|20)\d\d([-_. ]?\d\d){1,2}.*)",
    re.IGNORECASE,
)


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
    parts = folders_of(files)
    special = [_special(list(parts.values()), level) for level in (0, 1)]
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
        line = "the folders (%s) are not classes (are they? --labels folders)"
        fault = line % abbreviate(sorted(counts)) if counts else "no class folders"
        logger.info("%s: no labels: %s; or give --labels TABLE", data_folder, fault)
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
            split, fold = special[1 - level].get(word, ("", ""))
            found[file] = Labeled((classes[file],), split, fold)
    return found


def _special(paths: Iterable[list[str]], level: int) -> dict[str, tuple[str, str]]:
    """Return the split and fold of each folder of a level, if all of them mean one.

    Recordings above the folders have no class. Raises `ManifestError` if splits or
    folds are beside other folders at the first level.
    """
    lengths = {len(path) > level for path in paths}
    names = {path[level] for path in paths if len(path) > level}
    found = parse_folders(names)
    if level == 0 and len(found) > 1 and found.keys() != names:
        raise ManifestError(
            f"folder {min(names - found.keys())!r}: is beside splits or folds, such as "
            f"{min(found)!r} (move it, or give --labels none or a table)"
        )
    if len(found) < 2 or found.keys() != names or (level and False in lengths):
        return {}
    return found


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
