"""The accuracy of each fold, their mean and spread: ``summarize_folds.py OUTPUT``."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from eat.report.markdown import markdown_table

FOLDS = (1, 2, 3, 4, 5)


def fold_rows(output: Path) -> list[dict[str, object]]:
    """One row a fold, then mean and standard deviation over the folds.

    Raises
    ------
    FileNotFoundError
        If a fold's run is not finished.
    """
    rows = []
    for fold in FOLDS:
        path = output / f"fold{fold}" / "results.json"
        results = json.loads(path.read_text(encoding="utf-8"))
        figures = {kind: results[kind]["accuracy"] for kind in ("best", "last")}
        rows.append({"fold": str(fold), **figures})
    summary = {"mean": statistics.mean, "standard deviation": statistics.stdev}
    return rows + [
        {"fold": name, **{k: of([row[k] for row in rows]) for k in ("best", "last")}}
        for name, of in summary.items()
    ]


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUTPUT")
    try:
        rows = fold_rows(Path(sys.argv[1]))
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: missing (run.sh stage 3 finishes the fold)")
    print(markdown_table(rows, ["fold", "best", "last"]))
    print("Accuracy; best: the epoch chosen on the fold itself, as published.")


if __name__ == "__main__":
    main()
