"""`eat report`: curves, pictures and results of runs as one HTML page."""

from __future__ import annotations

import argparse

from eat.errors import ExperimentError, printable
from eat.utils.arguments import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="output folder of a training run")
    add(
        "--out",
        type=path,
        metavar="FILE.html",
        help="the page (default: report.html in the first run's folder, where it "
        "replaces an earlier report)",
    )
    add("--clip", metavar="FILE", help="recording to draw masks and attention of")


def run(options: argparse.Namespace) -> None:
    """Write the page and say where."""
    out = options.out
    if out is not None and out.exists():
        raise ExperimentError(f"--out {out}: exists (remove it, or give another)")
    from eat.report.page import write_page
    from eat.report.runs import read_runs

    runs = read_runs(options.runs)
    out = out or runs[0].folder / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    problems = write_page(runs, out, options.clip)
    for problem in problems:
        print(printable(f"note: {problem}"))
    print(printable(f"Written: {out}"))
