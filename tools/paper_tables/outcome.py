"""What came of a cell: its runs' numbers, and whether differences exceed the spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from scipy.stats import f_oneway, studentized_range, tukey_hsd

from paper_tables.jobs import Job
from paper_tables.plan import Cell
from paper_tables.schedule import in_order

LEVEL = 0.05


@dataclass(frozen=True)
class Outcome:
    """A cell and the records of its finished runs.

    Attributes
    ----------
    cell
        The cell.
    records
        Records of all runs by name, see :func:`paper_tables.gather.gather`.
    """

    cell: Cell
    records: Mapping[str, dict]

    @cached_property
    def runs(self) -> dict[int, tuple[Job, ...]]:
        """The jobs of each seed whose jobs are all there, by its place in the cell."""
        return {
            place: jobs
            for place, jobs in enumerate(self.cell.runs)
            if all(job.name in self.records for job in jobs)
        }

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.runs)

    def by_seed(self, which: str) -> dict[int, float]:
        """Percent of every seed, of the ``best`` or the ``last`` epoch."""
        return {
            place: 100 * self.cell.value(self.of(jobs), which)
            for place, jobs in self.runs.items()
        }

    def scores(self, which: str) -> list[float]:
        """The same as a list."""
        return list(self.by_seed(which).values())

    def of(self, jobs: Iterable[Job]) -> list[dict]:
        """The records of those jobs that are there."""
        return [self.records[job.name] for job in jobs if job.name in self.records]

    @property
    def finetunings(self) -> list[Job]:
        """The finished runs; those of the first seed before any is."""
        runs = list(self.runs.values()) or self.cell.runs[:1]
        return [job for jobs in runs for job in jobs]

    @property
    def pretrainings(self) -> list[Job]:
        """What they start from."""
        jobs = self.finetunings
        return [job for job in in_order(jobs) if job not in jobs]


@dataclass(frozen=True)
class Comparison:
    """Rows against each other, over seeds.

    Attributes
    ----------
    rows
        How many have two seeds or more; the others are left out.
    low, high
        Row and mean of the lowest and the highest.
    spread
        Standard deviation of a single run, pooled over rows.
    p_value
        Of a one-way analysis of variance: how often runs that differ by nothing but
        chance would differ as much.
    resolution
        The least difference between two rows that Tukey's test tells from chance at the
        5% level.
    pairs
        Rows that it tells apart, the higher one first.
    """

    rows: int
    low: tuple[str, float]
    high: tuple[str, float]
    spread: float
    p_value: float
    resolution: float
    pairs: list[tuple[str, str]]


def compare(scores: Mapping[str, Sequence[float]]) -> Comparison | None:
    """Compare the rows of a column; None with fewer than two rows of two seeds.

    Parameters
    ----------
    scores
        From a row's name to the score of each seed.
    """
    groups = {name: values for name, values in scores.items() if len(values) > 1}
    if len(groups) < 2:
        return None
    means = {name: statistics.mean(values) for name, values in groups.items()}
    squares = sum(
        (x - means[name]) ** 2 for name, values in groups.items() for x in values
    )
    free = sum(len(values) - 1 for values in groups.values())
    names = sorted(groups, key=means.__getitem__)
    samples = [groups[name] for name in names]
    p_values = tukey_hsd(*samples).pvalue
    spread = (squares / free) ** 0.5
    runs = statistics.harmonic_mean([len(sample) for sample in samples])
    quantile = studentized_range.ppf(1 - LEVEL, len(names), free)
    return Comparison(
        len(names),
        (names[0], means[names[0]]),
        (names[-1], means[names[-1]]),
        spread,
        float(f_oneway(*samples).pvalue),
        float(quantile) * spread / runs**0.5,
        [
            (names[high], names[low])
            for high in reversed(range(len(names)))
            for low in range(high)
            if p_values[high, low] < LEVEL
        ],
    )
