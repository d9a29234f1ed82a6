"""The scores of the quick start: what is compared, as a table and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from eat.report.pictures import plot_comparison

# Group, name and key in results.json of what is compared.
SYSTEMS = (
    ("Frozen", "log-mel statistics", "log_mel_statistics"),
    ("Frozen", "untrained network", "untrained_frozen"),
    ("Frozen", "pre-trained", "pretrained_frozen"),
    ("Fine-tuned", "from scratch", "scratch_finetuned"),
    ("Fine-tuned", "pre-trained", "pretrained_finetuned"),
)


def scores_of(results: dict, key: str) -> list[float]:
    """Return the scores of a system, one per seed."""
    return results[key] if isinstance(results[key], list) else [results[key]]


def pool(paths: Iterable[Path]) -> dict:
    """Combine the scores in several results.json, of different pre-training seeds."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    pooled = {"chance": files[0]["chance"]}
    for _, _, key in SYSTEMS:
        scores = [score for file in files for score in scores_of(file, key)]
        # What involves no pre-training is the same in every file.
        pooled[key] = list(dict.fromkeys(scores))
    return pooled


def table_rows(results: dict) -> list[dict]:
    """Return the rows of the table of scores."""
    rows = [{"": "chance", "mAP": results["chance"]}]
    for group, name, key in SYSTEMS:
        scores = scores_of(results, key)
        row = {"": f"{name}, {group.lower()}", "mAP": statistics.mean(scores)}
        if len(scores) > 1:
            row |= {"std": statistics.stdev(scores), "n": len(scores)}
            row["runs"] = ", ".join(f"{score:.3f}" for score in scores)
        rows.append(row)
    return rows


def draw_scores(results: dict, path: Path) -> None:
    """Draw the scores as bars."""
    rows = [
        {"group": group, "name": name, "runs": scores_of(results, key)}
        for group, name, key in SYSTEMS
    ]
    plot_comparison(rows, path, results["chance"])
