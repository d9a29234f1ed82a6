"""Scores of cross-validation folds: a table with their mean and standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from eat.errors import ExperimentError

METRICS = ("accuracy", "mAP")
KINDS = ("best", "last")


def summarize_folds(
    output: Path, folds: Sequence[object]
) -> tuple[str, list[dict[str, object]]]:
    """Return the metric, and the rows: one per fold, then mean and standard deviation.

    The run of a fold is ``output/fold<fold>``. Raises `ExperimentError` if one has no
    results, or other metrics than the first.
    """
    scores: list[Mapping[str, float]] = []
    metrics: Sequence[str] = METRICS
    for fold in folds:
        path = output / f"fold{fold}" / "results.json"
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            metrics = [name for name in metrics if name in results["best"]]
            scores.append({kind: float(results[kind][metrics[0]]) for kind in KINDS})
        except FileNotFoundError:
            raise ExperimentError(f"{path}: missing (run stage 3 of run.sh)") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ExperimentError(
                f"{path}: not the results of a run (run stage 3 of run.sh)"
            ) from None
    rows: list[dict[str, object]] = [
        {"fold": str(fold), **row} for fold, row in zip(folds, scores, strict=True)
    ]
    if len(folds) > 1:
        summary = {"mean": statistics.mean, "standard deviation": statistics.stdev}
        for name, of in summary.items():
            values = {kind: of([row[kind] for row in scores]) for kind in KINDS}
            rows.append({"fold": name, **values})
    return metrics[0], rows
