"""Accuracy of each fold, mean and standard deviation: ``summarize_folds.py OUTPUT``."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from eat.report.markdown import markdown_table

FOLDS = (1, 2, 3, 4, 5)
KINDS = ("best", "last")


def fold_rows(output: Path) -> list[dict[str, object]]:
    """Return one row per fold, then the mean and standard deviation over the folds."""
    rows: list[dict[str, Any]] = []
    for fold in FOLDS:
        path = output / f"fold{fold}" / "results.json"
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            scores = {kind: float(results[kind]["accuracy"]) for kind in KINDS}
        except (ValueError, KeyError, TypeError):
            sys.exit(f"error: {path}: not the results of a run (run stage 3 of run.sh)")
        rows.append({"fold": str(fold), **scores})
    summary = {"mean": statistics.mean, "standard deviation": statistics.stdev}
    return rows + [
        {"fold": name, **{kind: of([row[kind] for row in rows]) for kind in KINDS}}
        for name, of in summary.items()
    ]


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUTPUT")
    try:
        rows = fold_rows(Path(sys.argv[1]))
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: missing (run stage 3 of run.sh)")
    except OSError as error:
        sys.exit(f"error: {error.filename}: cannot be read, {error.strerror}")
    print(markdown_table(rows, ["fold", *KINDS]))
    print("Accuracy; best: the epoch selected on the fold itself, as in the paper.")


if __name__ == "__main__":
    main()
