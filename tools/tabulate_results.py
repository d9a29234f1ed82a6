"""Gather finished runs into results/published, and write RESULTS.md and the tables.

    python tools/tabulate_results.py               # runs in results/full_tables
    python tools/tabulate_results.py --runs DIR    # runs elsewhere

Records of earlier runs are kept after their folders are gone; records of runs that are
present are updated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eat.errors import exit_on_error, printable
from paper_tables.pages import write_pages
from paper_tables.records import gather, read_records, write_records

ROOT = Path(__file__).resolve().parents[1]


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = ROOT / "results" / "full_tables"
    parser.add_argument("--runs", type=Path, default=runs)
    parser.add_argument("--output", type=Path, default=ROOT / "RESULTS.md")
    parser.add_argument("--published", type=Path, default=ROOT / "results/published")
    args = parser.parse_args(arguments)
    if args.runs != runs and not args.runs.is_dir():
        parser.error(f"--runs {args.runs}: no such folder")
    return args


@exit_on_error()
def main(arguments: list[str] | None = None) -> None:
    """Gather records and write the pages."""
    args = parse_args(arguments)
    path = args.published / "full_tables.json"
    found = gather(args.runs)
    records = read_records(path) | found
    args.published.mkdir(parents=True, exist_ok=True)
    if found:
        write_records(path, records)
    print(printable(f"{len(found)} runs in {args.runs}, {len(records)} in total"))
    write_pages(records, args.published, args.output)
    print(printable(f"Written: {args.output} and {args.published}/*.md"))


if __name__ == "__main__":
    main()
