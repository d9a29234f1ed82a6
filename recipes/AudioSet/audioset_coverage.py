"""How much of AudioSet there is, by subset and class, compared with the paper."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from textwrap import wrap
from typing import NamedTuple

from audioset_layouts import Clips, Listing

from eat.data.audio_check import MISSING
from eat.data.manifest import LabelSet
from eat.data.prepare import Selection

# How many of the clips that were once online the paper had.
PAPER_CLIPS = {"pretrain": 1_912_134, "balanced_train": 20_550, "eval": 18_884}
COLUMNS = "mid name subset listed used share".split()
WORST = 10


class ClassCount(NamedTuple):
    """How many clips of a class are listed and used in a subset."""

    mid: str
    name: str
    subset: str
    listed: int
    used: int


def count_classes(
    classes: LabelSet, listed: Mapping[str, Clips], subsets: Mapping[str, Selection]
) -> list[ClassCount]:
    """Count the clips of each class in each subset."""
    counts = []
    for subset, clips in listed.items():
        in_list = Counter(chain.from_iterable(clips.values()))
        used = (row.labels for row in subsets[subset].rows)
        in_use = Counter(chain.from_iterable(used))
        counts += [
            ClassCount(mid, name, subset, in_list[mid], in_use[mid])
            for mid, name in zip(classes.ids, classes.names, strict=True)
        ]
    return counts


def coverage_csv(counts: Iterable[ClassCount]) -> str:
    """Return the content of ``coverage.csv``: one row per class and subset."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for count in counts:
        share = f"{count.used / count.listed:.4f}" if count.listed else ""
        writer.writerow((*count, share))
    return text.getvalue()


def worst_classes(counts: Sequence[ClassCount]) -> list[tuple[str, int, int]]:
    """Return name, listed and used clips of the classes with the lowest coverage.

    The joined subset counts only if it is the only one; complete classes are excluded.
    """
    joined_only = all(count.subset == "pretrain" for count in counts)
    listed: Counter[str] = Counter()
    used: Counter[str] = Counter()
    names = {}
    for count in counts:
        if joined_only or count.subset != "pretrain":
            listed[count.mid] += count.listed
            used[count.mid] += count.used
            names[count.mid] = count.name
    lost = [(names[mid], listed[mid], used[mid]) for mid in names]
    lost = [row for row in lost if row[2] < row[1]]
    return sorted(lost, key=lambda row: (row[2] / row[1], row[2] - row[1]))[:WORST]


def compare_with_paper(used: Mapping[str, int]) -> list[str]:
    """Return what the counts of used clips mean for a comparison of scores."""
    lines = []
    for subset, paper in PAPER_CLIPS.items():
        if subset not in used:
            continue
        share = f"{used[subset] / paper:.1%} of the paper's number of clips"
        if used[subset] >= paper:
            line = f"{share}, though not necessarily the same clips."
        elif subset == "eval":
            line = (
                f"{share}. Scores are computed on a different set of clips than the "
                "paper's, so they may differ for that reason alone."
            )
        else:
            line = (
                f"{share}. Scores after training on fewer clips may be lower for that "
                "reason alone."
            )
        lines += wrap(f"{subset}: {line}", 100)
    return lines


def _table(subsets: Mapping[str, Selection]) -> list[str]:
    """Format the counts of all subsets as a table."""
    names = ("listed", "found", "missing", "skipped", "used")
    heads = (*names, "paper used", "share", "hours")
    lines = [f"  {'':<18}" + "".join(f"{head:>12}" for head in heads)]
    for subset, selection in subsets.items():
        counts, paper = selection.counts, selection.counts["used_in_paper"]
        cells = [f"{counts[name]:,}" for name in names]
        cells += [f"{paper:,}", f"{counts['used'] / paper:.1%}"] if paper else ["", ""]
        cells.append(f"{counts['hours']:,.1f}")
        lines.append(f"  {subset:<18}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def _by_subset(counts: Mapping[str, Counter]) -> list[str]:
    """Format a few counts of each subset in one line, the largest first."""
    lines = []
    for subset, count in counts.items():
        each = (f"{name}: {number:,}" for name, number in count.most_common())
        lines.append(f"  {subset:<18}{', '.join(each) or 'none'}")
    return lines


def summary_page(
    title: str,
    subsets: Mapping[str, Selection],
    classes: Sequence[ClassCount],
    listing: Listing,
) -> str:
    """Return the content of ``summary.txt``: what is there and what is not.

    `classes` are from `count_classes`, `listing` is the corpus as it was found.
    """
    reasons = {}
    for subset in listing.subsets:
        skipped = subsets[subset].skipped
        kinds = (clip.reason.partition(":")[0] for clip in skipped)
        reasons[subset] = Counter(kind for kind in kinds if kind != MISSING)
    counts = {name: selection.counts for name, selection in subsets.items()}
    rates = {name: count["sample_rates"] for name, count in counts.items()}
    used = {name: count["used"] for name, count in counts.items()}
    worst = [
        f"  {name:<44}{used:>9,} of {listed:>9,}{used / listed:>8.1%}"
        for name, listed, used in worst_classes(classes)
    ]
    sections = {
        "Clips": _table(subsets),
        "Skipped clips by reason (details in skipped.csv)": _by_subset(reasons),
        "Used clips by sample rate in Hz": _by_subset(rates),
        "Unused audio files": [
            f"  {listing.duplicates:,} whose clip has another file",
            f"  {listing.unlisted:,} of unlisted clips",
        ],
        "Classes with the lowest coverage (all in coverage.csv)": worst or ["  none"],
        "Compared with the paper": [f"  {line}" for line in compare_with_paper(used)],
    }
    lines = [title]
    for head, section in sections.items():
        lines += ["", head, *section]
    return "\n".join(lines) + "\n"
