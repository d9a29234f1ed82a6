"""Score of each fold, mean and standard deviation: ``summarize_folds.py OUTPUT``.

OUTPUT is that of run.sh: the folds' runs are OUTPUT/fold<fold>, one for each of
OUTPUT/manifests/eval_<fold>.csv.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from own_data_manifests import list_folds

from eat.report.markdown import markdown_table

METRICS = ("accuracy", "mAP")
KINDS = ("best", "last")


def summarize(output: Path) -> tuple[str, list[dict[str, object]]]:
    """Return the metric, and the rows: one per fold, mean, standard deviation.

    Raises FileNotFoundError if a fold has no results.
    """
    folds = list_folds(output / "manifests")
    if not folds:
        raise FileNotFoundError(2, "no folds", str(output / "manifests/eval_*.csv"))
    paths = [output / f"fold{fold}" / "results.json" for fold in folds]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    metric = next(name for name in METRICS if name in results[0]["best"])
    scores = [{kind: run[kind][metric] for kind in KINDS} for run in results]
    rows: list[dict[str, object]] = [
        {"fold": str(fold), **row} for fold, row in zip(folds, scores, strict=True)
    ]
    if len(folds) > 1:
        for name, of in (
            ("mean", statistics.mean),
            ("standard deviation", statistics.stdev),
        ):
            values = {kind: of([row[kind] for row in scores]) for kind in KINDS}
            rows.append({"fold": name, **values})
    return metric, rows


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUTPUT")
    try:
        metric, rows = summarize(Path(sys.argv[1]))
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: missing (run stages 1 to 3 of run.sh)")
    print(markdown_table(rows, ["fold", *KINDS]))
    print(f"{metric}; best: the epoch selected on the fold itself.")


if __name__ == "__main__":
    main()
