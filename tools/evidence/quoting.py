"""The study's numbers, and sentences that name them.

``${default: linear}``            mean and standard deviation over seeds
``${default: knn, teacher}``      of the teacher instead of the student
``${1x1: linear @ 2000}``         after so many steps instead of at the end
``${1x1 - default}``              difference with its 95% interval, of few seeds if so
``${1x1 - default: linear_cls}``  of another probe
``${trained: share}``             of the utterance target, see `utterance_variance`
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from evidence.comparing import RowResults, read_comparisons, read_rows
from evidence.references import FILE as BASELINES
from evidence.references import UNTRAINED
from evidence.studies import read_studies
from evidence.utterance_variance import FILE as VARIANCES

LABELS = "labels.json"
NOT_RUN = "(not run yet)"
PLACE = re.compile(
    r"(?P<row>[^:]+): (?P<metric>\w+)(, (?P<weights>teacher))?( @ (?P<step>\d+))?"
)
PAIR = re.compile(r"(?P<rows>[^:]+ - [^:]+)(: (?P<probe>\w+))?")


class NumberTemplate(Template):
    """A template whose fields in braces may be any text."""

    braceidpattern = r"[^{}]+"


@dataclass(frozen=True)
class Numbers:
    """All results of the study; by name as text.

    Attributes
    ----------
    rows
        Results by row, then by seed, only of rows that have any.
    comparisons
        See :func:`evidence.comparing.compare`, by row and reference.
    baselines
        Scores by baseline, one for each seed.
    labels
        Fine-tuning from scratch and pre-trained, and the difference, by percentage.
    layer_decay
        Fine-tuning with layer-wise decay, by what is done with the lowest rates.
    label_minutes
        Minutes of all fine-tunings on one core, 0 before they were run.
    variances
        Of the utterance target, see :mod:`evidence.utterance_variance`.
    """

    rows: Mapping[str, RowResults]
    comparisons: Mapping[str, Mapping[str, Any]]
    baselines: Mapping[str, Sequence[Mapping[str, Any]]]
    labels: Mapping[str, Mapping[str, Any]]
    layer_decay: Mapping[str, Mapping[str, Any]]
    label_minutes: float
    variances: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, results: Path) -> Numbers:
        """Read the result files of a folder."""
        rows = [row for study in read_studies().values() for row in study.rows]
        return cls(
            read_rows(rows, results),
            read_comparisons(results),
            _baselines(results),
            _read(results / LABELS, "comparisons"),
            _read(results / LABELS, "layer_decay"),
            sum(
                run["minutes"]
                for kind in ("search", "runs")
                for run in _read(results / LABELS, kind).values()
            ),
            _read(results / VARIANCES, "variances"),
        )

    def points(
        self, row: str, metric: str, weights: str = "student", step: int | None = None
    ) -> list[float]:
        """Return a row's scores, one for each seed, at the end or after a step."""
        if row in self.variances:
            return [self.variances[row][metric]]
        if row in self.baselines:
            return [scores[metric] for scores in self.baselines[row]]
        found = []
        for result in self.rows.get(row, {}).values():
            curve = [p for p in result["curve"] if p["weights"] == weights]
            if step is not None:
                curve = [p for p in curve if p["step"] == step]
            found += [point[metric] for point in curve[-1:]]
        return found

    def difference(self, row: str, reference: str, probe: str = "linear") -> str:
        """Return a difference with its 95% interval as text."""
        found = self.comparisons.get(f"{row} - {reference}")
        if found is None:
            return NOT_RUN
        return "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found[probe])

    def __getitem__(self, name: str) -> str:
        """Return the text of a name in a template."""
        if pair := PAIR.fullmatch(name):
            row, reference = pair["rows"].split(" - ")
            text = self.difference(row, reference, pair["probe"] or "linear")
            found = self.comparisons.get(f"{row} - {reference}")
            return f"{text}{seed_count(found['seeds'])}" if found else text
        if place := PLACE.fullmatch(name):
            weights, step = place["weights"] or "student", place["step"]
            return mean_std(
                self.points(
                    place["row"], place["metric"], weights, int(step) if step else None
                )
            )
        raise KeyError(name)


class Fields(dict[str, str]):
    """Fields of a template; other names are those of numbers."""

    def __init__(self, fields: Mapping[str, str], numbers: Numbers) -> None:
        super().__init__(fields)
        self.numbers = numbers

    def __missing__(self, name: str) -> str:
        return self.numbers[" ".join(name.split())]  # a line may end within it


def _baselines(results: Path) -> dict[str, list[dict[str, Any]]]:
    scores = _read(results / BASELINES, "scores")
    return {k: v if k == UNTRAINED else [v] for k, v in scores.items()}


def _read(path: Path, key: str) -> dict[str, Any]:
    """Read a part of a result file; empty without a file."""
    return json.loads(path.read_text(encoding="utf-8"))[key] if path.exists() else {}


def seed_count(seeds: Sequence[int]) -> str:
    """Return a remark where the interval of a difference is of few seeds."""
    return {1: " (one seed)", 2: " (two seeds)"}.get(len(seeds), "")


def mean_std(scores: Sequence[float]) -> str:
    """Return the mean, with the standard deviation if there are several scores."""
    if not scores:
        return NOT_RUN
    std = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{std}"
