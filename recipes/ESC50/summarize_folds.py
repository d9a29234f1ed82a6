"""Accuracy of each fold, mean and standard deviation: ``summarize_folds.py OUTPUT``."""

from __future__ import annotations

import argparse
from pathlib import Path

from eat.errors import exit_on_error
from eat.report.folds import KINDS, summarize_folds
from eat.report.markdown import markdown_table


@exit_on_error()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="that of run.sh")
    _, rows = summarize_folds(parser.parse_args().output, range(1, 6))
    print(markdown_table(rows, ["fold", *KINDS]))
    print("Accuracy; best: the epoch selected on the fold itself, as in the paper.")


if __name__ == "__main__":
    main()
