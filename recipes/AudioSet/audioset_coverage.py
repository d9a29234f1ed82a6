"""How much of AudioSet is there: counts by subset and class, beside the paper's."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from textwrap import wrap

from audioset_layouts import Clips, Listing

from eat.audio.io import AudioInfo
from eat.data.manifest import LabelSet, ManifestRow
from eat.data.prepare import MISSING, Skipped
from eat.utils.files import atomic_open

# How many of the clips that were once online the paper had.
PAPER_CLIPS = {"pretrain": 1_912_134, "balanced_train": 20_550, "eval": 18_884}
COLUMNS = "mid name subset listed used share".split()
WORST = 10

Counts = dict[str, object]  # of one subset, as in summary.json


def count_clips(
    subset: str,
    rows: Sequence[ManifestRow],
    skipped: Sequence[Skipped],
    headers: Mapping[str, AudioInfo],
) -> Counts:
    """Sum up a subset for the summary.

    Parameters
    ----------
    subset : str
        Its name.
    rows : sequence of ManifestRow
        The clips used.
    skipped : sequence of Skipped
        The clips left out.
    headers : mapping of str to AudioInfo
        The checked files.

    Returns
    -------
    dict of str to object
        Counts of clips, hours, sample rates and channels.
    """
    infos = [headers[row.wav] for row in rows]
    missing = sum(clip.reason == MISSING for clip in skipped)
    return {
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


class Coverage:
    """How many clips of each class are listed and used, by subset.

    Parameters
    ----------
    known : LabelSet
        The classes.
    """

    def __init__(self, known: LabelSet) -> None:
        self.known = known
        self.listed: dict[str, Counter[str]] = {}
        self.used: dict[str, Counter[str]] = {}

    def add(self, subset: str, clips: Clips, rows: Sequence[ManifestRow]) -> None:
        """Count the classes of a subset.

        Parameters
        ----------
        subset : str
            Its name.
        clips : Clips
            The listed clips.
        rows : sequence of ManifestRow
            The used ones.
        """
        self.listed[subset] = Counter(chain.from_iterable(clips.values()))
        self.used[subset] = Counter(chain.from_iterable(row.labels for row in rows))

    def write(self, path: Path) -> None:
        """Write one row a class and subset.

        Parameters
        ----------
        path : Path
            CSV file to write.
        """
        with atomic_open(path) as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for subset in self.listed:
                for mid, name in zip(self.known.ids, self.known.names, strict=True):
                    listed, used = self.listed[subset][mid], self.used[subset][mid]
                    share = f"{used / listed:.4f}" if listed else ""
                    writer.writerow((mid, name, subset, listed, used, share))

    def worst(self) -> list[tuple[str, int, int]]:
        """Return name, listed and used of the classes that lost most of their clips.

        Returns
        -------
        list of tuple of str, int and int
            Over all subsets but the joined one; classes that lost nothing are left out.
        """
        parts = [name for name in self.listed if name != "pretrain"] or ["pretrain"]
        lost = []
        for mid, name in zip(self.known.ids, self.known.names, strict=True):
            listed = sum(self.listed[subset][mid] for subset in parts)
            used = sum(self.used[subset][mid] for subset in parts)
            if used < listed:
                lost.append((name, listed, used))
        return sorted(lost, key=lambda row: (row[2] / row[1], row[2] - row[1]))[:WORST]


def _meaning(counts: Mapping[str, Counts]) -> list[str]:
    """Say what the counts mean for a comparison of scores with the paper's."""
    lines = []
    for subset, paper in PAPER_CLIPS.items():
        if subset not in counts:
            continue
        used = counts[subset]["used"]
        if used >= paper:
            line = (
                "no fewer clips than the paper used. Equal numbers do not show that "
                "they are the same clips."
            )
        elif subset == "eval":
            line = (
                f"{used / paper:.1%} of the paper's number of clips. Scores are taken "
                "on another set of clips than the paper's, so they may differ from its "
                "scores for that reason alone."
            )
        else:
            line = (
                f"{used / paper:.1%} of the paper's number of clips. Scores after "
                "training on fewer clips may be lower for that reason alone."
            )
        lines += wrap(f"{subset}: {line}", 100)
    return lines


def _table(counts: Mapping[str, Counts]) -> list[str]:
    """Lay out the counts of all subsets."""
    names = ("listed", "found", "missing", "skipped", "used")
    heads = (*names, "paper used", "share", "hours")
    lines = [f"  {'':<18}" + "".join(f"{head:>12}" for head in heads)]
    for subset, count in counts.items():
        paper = count["used_in_paper"]
        cells = [f"{count[name]:,}" for name in names]
        cells += [f"{paper:,}", f"{count['used'] / paper:.1%}"] if paper else ["", ""]
        cells.append(f"{count['hours']:,.1f}")
        lines.append(f"  {subset:<18}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def _by_subset(counts: Mapping[str, Counter]) -> list[str]:
    """Lay out a few counts of each subset in a line, the largest first."""
    lines = []
    for subset, count in counts.items():
        each = (f"{name}: {number:,}" for name, number in count.most_common())
        lines.append(f"  {subset:<18}{', '.join(each) or 'none'}")
    return lines


def summary_text(
    title: str,
    counts: Mapping[str, Counts],
    skipped: Sequence[Skipped],
    coverage: Coverage,
    listing: Listing,
) -> str:
    """Say on a page what is there and what is not.

    Parameters
    ----------
    title : str
        The first line.
    counts : mapping of str to Counts
        From `count_clips`, by subset.
    skipped : sequence of Skipped
        The clips left out.
    coverage : Coverage
        Counts by class.
    listing : Listing
        The corpus as it was found.

    Returns
    -------
    str
        The page.
    """
    reasons: dict[str, Counter[str]] = {clips: Counter() for clips in listing.subsets}
    for clip in skipped:
        if clip.reason != MISSING:
            reasons[clip.subset][clip.reason.partition(":")[0]] += 1
    rates = {subset: count["sample_rates"] for subset, count in counts.items()}
    worst = [
        f"  {name:<44}{used:>9,} of {listed:>9,}{used / listed:>8.1%}"
        for name, listed, used in coverage.worst()
    ]
    sections = {
        "Clips": _table(counts),
        "Skipped clips by reason (each is in skipped.csv)": _by_subset(reasons),
        "Used clips by sample rate in Hz": _by_subset(rates),
        "Audio files left aside": [
            f"  {listing.duplicates:,} of clips that have another file",
            f"  {listing.unlisted:,} of no listed clip",
        ],
        "Classes that lost most (all are in coverage.csv)": worst or ["  none"],
        "Beside the paper": [f"  {line}" for line in _meaning(counts)],
    }
    lines = [title]
    for head, section in sections.items():
        lines += ["", head, *section]
    return "\n".join(lines) + "\n"
