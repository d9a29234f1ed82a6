"""Score of each fold, mean and standard deviation: ``summarize_folds.py OUTPUT``.

OUTPUT is that of run.sh: the folds' runs are OUTPUT/fold<fold>, one for each of
OUTPUT/manifests/eval_<fold>.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from own_data_manifests import list_folds

from eat.errors import ExperimentError, exit_on_error
from eat.report.folds import KINDS, summarize_folds
from eat.report.markdown import markdown_table


@exit_on_error()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="that of run.sh")
    output = parser.parse_args().output
    if not (folds := list_folds(output / "manifests")):
        path = output / "manifests" / "eval_*.csv"
        raise ExperimentError(f"{path}: no folds (run stage 1 of run.sh)")
    metric, rows = summarize_folds(output, folds)
    print(markdown_table(rows, ["fold", *KINDS]))
    print(f"{metric}; best: the epoch selected on the fold itself.")


if __name__ == "__main__":
    main()
