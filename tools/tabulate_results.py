"""Gather finished runs into results/published, and write RESULTS.md from it.

    python tools/tabulate_results.py                              # whatever is there
    python tools/tabulate_results.py --corpus full --runs DIR     # runs made elsewhere

A run already gathered stays when its folder is gone, and is refreshed when it is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from paper_tables.gather import GatherError, gather, read_published, write_published
from paper_tables.tabulate import document

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ("full", "mini")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=CORPORA, help="whose runs; default: both")
    parser.add_argument(
        "--runs", type=Path, help="their folder; default: results/<corpus>_tables"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "RESULTS.md")
    parser.add_argument("--published", type=Path, default=ROOT / "results/published")
    options = parser.parse_args(arguments)
    if options.runs and not options.corpus:
        parser.error("--runs needs --corpus: are they full or mini?")
    if options.runs and not options.runs.is_dir():
        parser.error(f"--runs {options.runs}: no such folder")
    return options


def update(corpus: str, runs: Path, published: Path) -> dict[str, dict]:
    """Add the runs of a folder to the committed records; returns them all."""
    path = published / f"{corpus}_tables.json"
    found = gather(runs)
    records = {**read_published(path), **found}
    if found:
        write_published(path, records)
    print(f"{corpus}: {len(found)} runs in {runs}, {len(records)} in all")
    return records


def main(arguments: list[str] | None = None) -> None:
    """Gather and write."""
    options = read_options(arguments)
    published = options.published
    published.mkdir(parents=True, exist_ok=True)
    try:
        records = {}
        for corpus in CORPORA:
            runs = ROOT / "results" / f"{corpus}_tables"
            if options.corpus == corpus and options.runs:
                runs = options.runs
            if options.corpus in (None, corpus):
                records[corpus] = update(corpus, runs, published)
            else:
                records[corpus] = read_published(published / f"{corpus}_tables.json")
    except GatherError as error:
        sys.exit(f"tabulate_results: {error}")
    text = document(records, published, options.output.absolute())
    partial = options.output.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, options.output)
    print(f"{options.output}: written")


if __name__ == "__main__":
    main()
