"""Training curves of a pre-training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from eat.report.style import BLUE, GRAY, GREEN, PURPLE, VERMILION, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Names of metrics in logs of version 0.1.
OLD_NAMES = {
    "target_deviation": "target_std",
    "prediction_deviation": "prediction_std",
    "content": "between_clip_variance",
}


def read_metrics(path: str | Path) -> pd.DataFrame:
    """Read a run's ``metrics.jsonl``, also one written by version 0.1.

    The table has one row per record, sorted by step, with its ``kind`` ("step" or
    "epoch"). Lines that are no records, as a killed run may leave one, are skipped; if
    a resumed run repeats a step, its last record counts. Raises
    ValueError if the file contains no record.
    """
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(record, dict) or not record.keys() >= {"kind", "step"}:
            continue
        records.append({OLD_NAMES.get(key, key): v for key, v in record.items()})
    if not records:
        raise ValueError(f"{path}: no records (wait for the first logged step)")
    table = pd.DataFrame(records).drop_duplicates(["kind", "step"], keep="last")
    return table.sort_values("step", kind="stable", ignore_index=True)


def _trace(
    axes: Axes, steps: pd.DataFrame, key: str, color: str, style: str = "-"
) -> None:
    """Draw a noisy signal in a light color, with its running median on top."""
    window = max(1, len(steps) // 40)
    smooth = steps[key].rolling(window, center=True, min_periods=1).median()
    axes.plot(steps["step"], steps[key], color=color, alpha=0.25, linewidth=0.8)
    label = key.replace("between_clip", "between-clip").replace("_", " ")
    axes.plot(steps["step"], smooth, style, color=color, linewidth=2, label=label)


def _draw_losses(axes: Axes, steps: pd.DataFrame) -> None:
    from matplotlib.ticker import LogLocator

    for key, color in (("frame_loss", BLUE), ("utterance_loss", VERMILION)):
        _trace(axes, steps, key, color)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    tidy(axes, "Pre-training losses", "step", "squared error / √width (log scale)")


def _draw_signals(axes: Axes, steps: pd.DataFrame) -> None:
    # Dashed, because healthy values of the first two coincide.
    signals = {
        "between_clip_variance": (GREEN, "-"),
        "target_std": (BLUE, "--"),
        "prediction_std": (VERMILION, "-"),
    }
    for key, (color, style) in signals.items():
        _trace(axes, steps, key, color, style)
    axes.set_ylim(0, max(1.2, 1.05 * float(steps[list(signals)].max().max())))
    tidy(axes, "Collapse monitor (healthy: near 1)", "step", "value")


def _draw_probe(
    axes: Axes, epochs: pd.DataFrame, references: Mapping[str, float]
) -> None:
    name, steps, scores = "pre-trained features", epochs["step"], epochs["knn_mAP"]
    axes.plot(steps, scores, "o-", color=PURPLE, label=name)
    for (name, level), style in zip(references.items(), cycle(("--", ":", "-."))):
        axes.axhline(level, color=GRAY, linestyle=style, label=name)
    axes.margins(y=0.15)
    tidy(axes, "kNN probe of frozen features", "step", "mAP")


def plot_curves(
    metrics: pd.DataFrame,
    path: str | Path,
    references: Mapping[str, float] | None = None,
) -> None:
    """Draw a pre-training run: losses, collapse monitor and, with labels, kNN probe.

    `references` are the kNN mAP of other features by name, drawn as horizontal lines.
    """
    steps = metrics[metrics["kind"] == "step"]
    probed = "knn_mAP" in metrics
    figure = new_figure(13.5 if probed else 9.2, 4.6)
    panels = figure.subplots(1, 3 if probed else 2)
    _draw_losses(panels[0], steps)
    _draw_signals(panels[1], steps)
    if probed:
        _draw_probe(panels[2], metrics.dropna(subset="knn_mAP"), references or {})
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncol": 2}
    for axes in panels:
        axes.set_xlim(left=0)
        axes.legend(**below, frameon=False, fontsize=10)
    figure.savefig(path)
