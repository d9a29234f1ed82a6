"""RESULTS.md as a whole: every table and figure of the paper, at both sizes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eat.report.style import BLUE, VERMILION
from paper_tables import advice, tables
from paper_tables.gather import CORPUS_FOLDERS, RUNS
from paper_tables.jobs import Job
from paper_tables.outcome import Outcome
from paper_tables.pictures import Curve, Panel, plot_panels
from paper_tables.plan import POOLINGS, TABLES, Study
from paper_tables.provenance import commands, coverage, deviations, versions
from paper_tables.published import LEVELS, PRINTED, SOURCES
from paper_tables.scale import FULL, Scale, mini_scale
from paper_tables.schedule import in_order

CORPUS_OPTIONS = {
    "table1": " --audioset DIR --esc50 DIR --speech_commands DIR",
    "rest": " --audioset DIR",
}
SHELL = {
    "full": "OUT=$PWD/results/full_tables\n"
    "AUDIOSET=/DIR ESC50=/DIR SPEECH_COMMANDS=/DIR",
    "mini": "MINI=$PWD/results/mini_corpora OUT=$PWD/results/mini_tables\n"
    "AUDIOSET=$MINI/AudioSet ESC50=$MINI/ESC-50-master\n"
    "SPEECH_COMMANDS=$MINI/speech_commands_v0.02",
}
X_NAMES = {
    "figure3": "epochs of pre-training",
    "figure4": "weight of the utterance loss",
}
COLORS = {
    "figure3": {"AS-20K": BLUE},
    "figure4": dict(zip(POOLINGS, (BLUE, VERMILION), strict=True)),
}


def scale_of(corpus: str) -> Scale:
    """``full`` or ``mini``, the same on every machine."""
    if corpus == "full":
        return FULL
    # Where processors lack bf16, runs say so themselves.
    return replace(mini_scale(), options=("--device", "cpu", "--noprogressbar"))


@dataclass(frozen=True)
class Chapter:
    """All tables at one size.

    Attributes
    ----------
    corpus
        ``full`` or ``mini``.
    records
        From a run's name to its record, see :func:`paper_tables.gather.gather`.
    """

    corpus: str
    records: dict[str, dict]

    @property
    def full(self) -> bool:
        """Whether these are the paper's sizes."""
        return self.corpus == "full"

    @property
    def study(self) -> Study:
        """The plan, with the seeds that runs were made with."""
        found = (re.search(r"-seed(\d+)$", name) for name in self.records)
        seeds = sorted({int(match[1]) for match in found if match}) or [1]
        data = {name: Path(folder) for name, folder in CORPUS_FOLDERS.items()}
        recipes = Path("recipes")
        return Study(scale_of(self.corpus), recipes, data, Path(RUNS), tuple(seeds))

    def outcomes(self, table: str) -> list[Outcome]:
        """What came of each cell."""
        return [Outcome(cell, self.records) for cell in self.study.cells(table)]

    def jobs(self, names: Iterable[str] = TABLES) -> list[Job]:
        """All runs of some tables, each once."""
        cells = [cell for table in names for cell in self.study.cells(table)]
        return in_order(job for cell in cells for job in cell.jobs)

    def state(self, jobs: list[Job]) -> str:
        """How many runs are made, and what the others cost."""
        missing = [job for job in jobs if job.name not in self.records]
        seeds = ", ".join(map(str, self.study.seeds))
        seeds = f"seed{'s' * (len(self.study.seeds) > 1)} {seeds}"
        hours = sum(job.gpu_hours or 0 for job in missing)
        costs = f"; the rest takes some {hours:,.0f} GPU hours" if hours else ""
        done = len(jobs) - len(missing)
        return f"{done} of {len(jobs)} runs made ({seeds}){costs}."


def panels(table: str, outcomes: list[Outcome], full: bool) -> list[Panel]:
    """The panels of a figure: one for both at full size, else one each."""
    paper, here = [], []
    for column, color in COLORS[table].items():
        suffix = f", {column} pooling" * (len(COLORS[table]) > 1)
        printed = {r: [p.score] for (r, c), p in PRINTED[table].items() if c == column}
        of_column = [o for o in outcomes if o.n and o.cell.column == column]
        ours = {o.cell.row: o.scores("best") for o in of_column}
        if printed:
            paper.append(Curve(f"paper{suffix}", printed, color, ours=False))
        if ours:
            here.append(Curve(f"here{suffix}", ours, color, ours=True))
    ticks = list(dict.fromkeys(outcome.cell.row for outcome in outcomes))
    printed_too = {row for row, _ in PRINTED[table]} - set(ticks)
    all_ticks = [*ticks, *sorted(printed_too, key=float)]
    levels = LEVELS if table == "figure3" else {}
    if full:
        return [Panel("Full size", [*paper, *here], all_ticks, levels)]
    return [
        Panel("Paper, full size", paper, all_ticks, levels),
        Panel("Here, mini corpora", here, ticks),
    ]


def section(chapter: Chapter, table: str, pictures_folder: Path, output: Path) -> str:
    """One table or figure: numbers, what to suspect, commands."""
    outcomes, jobs = chapter.outcomes(table), chapter.jobs([table])
    parts = [f"### {advice.TITLES[table]}", SOURCES[table] + " " + chapter.state(jobs)]
    parts.append(f"```\n{reproduce(chapter, table)}\n```")
    if table == "table2":
        parts.append(tables.cost_table(outcomes[0], chapter.full))
        parts += [advice.COST_CAUTION] * chapter.full
    else:
        parts.append(tables.score_table(table, outcomes, chapter.full))
    if table == "table1" and chapter.full:
        parts += ["Beside other systems:", tables.systems_table()]
    if table in X_NAMES and any(outcome.n for outcome in outcomes):
        path = pictures_folder / f"{table}_{chapter.corpus}.png"
        shown = panels(table, outcomes, chapter.full)
        plot_panels(shown, path, X_NAMES[table], "mAP, best epoch (%)")
        link = Path(os.path.relpath(path, output.parent)).as_posix()
        parts.append(f"![{advice.TITLES[table]}]({link})")
    facts = tables.comparisons(table, outcomes)
    facts += coverage(jobs, chapter.records) + deviations(jobs, chapter.records)
    parts.append("\n".join(f"- {fact}" for fact in facts))
    if chapter.full:
        suspects = "\n".join(f"- {line}" for line in advice.SUSPECTS[table])
        parts.append(f"What to suspect when yours differs:\n\n{suspects}")
    first = [job for outcome in outcomes for job in outcome.cell.runs[0]]
    script = commands(first, chapter.records)
    parts.append(
        "<details><summary>The runs of each row, first seed</summary>\n\n"
        f"```\n{SHELL[chapter.corpus]}\n{script}\n```\n\n</details>"
    )
    return "\n\n".join(filter(None, parts))


def reproduce(chapter: Chapter, table: str) -> str:
    """The command that makes all runs of a table."""
    seeds = f" --seeds {len(chapter.study.seeds)}"
    corpus = CORPUS_OPTIONS.get(table, CORPUS_OPTIONS["rest"])
    options = corpus if chapter.full else " --corpus mini"
    return f"python tools/reproduce.py {table}{options}{seeds}"


def document(records: dict[str, dict[str, dict]], published: Path, output: Path) -> str:
    """Write the whole text; the pictures go to a folder.

    Parameters
    ----------
    records
        By corpus, then by run.
    published
        Gets the pictures; ``<corpus>_conclusions.md`` there, if any, is included.
    output
        Where the text will be, for links.

    Returns
    -------
    str
        Markdown.
    """
    parts = [advice.TOP, advice.READING, "## Independent re-runs", advice.RERUNS]
    parts.append(tables.reruns_table())
    for corpus, (title, intro) in advice.CHAPTERS.items():
        chapter = Chapter(corpus, records[corpus])
        parts += [f"## {title}", intro, f"In all {chapter.state(chapter.jobs())}"]
        parts += ["\n".join(versions(chapter.jobs(), chapter.records))]
        conclusions = published / f"{corpus}_conclusions.md"
        if conclusions.is_file():
            parts.append("### What can and cannot be concluded")
            parts.append(conclusions.read_text(encoding="utf-8").strip())
        parts += [section(chapter, table, published, output) for table in TABLES]
    return "\n\n".join(filter(None, parts)) + "\n"
