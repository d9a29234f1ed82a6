"""The training curves of a pre-training run."""

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


def read_metrics(path: str | Path) -> pd.DataFrame:
    """Read a run's ``metrics.jsonl``.

    A line cut short by a killed run is left out. Where a resumed run repeats a step,
    its last record counts.

    Parameters
    ----------
    path : str or Path
        One JSON object a line, each with ``kind`` ("step" or "epoch") and ``step``.

    Returns
    -------
    pandas.DataFrame
        One row a record, ordered by step; NaN where a record lacks a key.

    Raises
    ------
    ValueError
        If the file holds no record.
    """
    records = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    if not records:
        raise ValueError(f"{path}: no records; has the run made its first log step?")
    table = pd.DataFrame(records).drop_duplicates(["kind", "step"], keep="last")
    return table.sort_values("step", kind="stable", ignore_index=True)


def _trace(
    axes: Axes, steps: pd.DataFrame, key: str, color: str, style: str = "-"
) -> None:
    """Draw a noisy signal faintly and its running median on top."""
    window = max(1, len(steps) // 40)
    smooth = steps[key].rolling(window, center=True, min_periods=1).median()
    axes.plot(steps["step"], steps[key], color=color, alpha=0.25, linewidth=0.8)
    label = key.replace("_", " ")
    axes.plot(steps["step"], smooth, style, color=color, linewidth=2, label=label)


def _draw_losses(axes: Axes, steps: pd.DataFrame) -> None:
    from matplotlib.ticker import LogLocator

    for key, color in (("frame_loss", BLUE), ("utterance_loss", VERMILION)):
        _trace(axes, steps, key, color)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    tidy(axes, "Losses", "step", "squared error / √width (log)")


def _draw_signals(axes: Axes, steps: pd.DataFrame) -> None:
    # Dashes, since content and target_std lie on each other when all is well.
    signals = {
        "between_clip_variance": (GREEN, "-"),
        "target_std": (BLUE, "--"),
        "prediction_std": (VERMILION, "-"),
    }
    for key, (color, style) in signals.items():
        _trace(axes, steps, key, color, style)
    axes.set_ylim(0, max(1.2, 1.05 * steps[list(signals)].max(axis=None)))
    tidy(axes, "Collapse signals (healthy near 1)", "step", "share, standard deviation")


def _draw_probe(
    axes: Axes, epochs: pd.DataFrame, references: Mapping[str, float]
) -> None:
    axes.plot(epochs["step"], epochs["knn_mAP"], "o-", color=PURPLE, label="features")
    for (name, level), style in zip(references.items(), cycle(("--", ":", "-."))):
        axes.axhline(level, color=GRAY, linestyle=style, label=name)
    axes.margins(y=0.15)
    tidy(axes, "Frozen features after each epoch", "step", "kNN mAP")


def plot_curves(
    metrics: pd.DataFrame,
    path: str | Path,
    references: Mapping[str, float] | None = None,
) -> None:
    """Draw a pre-training run: its losses, its collapse signals, its kNN probe.

    Parameters
    ----------
    metrics : pandas.DataFrame
        From `read_metrics`. A run without labels has no ``knn_mAP`` and gets no
        panel for it.
    path : str or Path
        The picture to write.
    references : Mapping[str, float], optional
        Name and kNN mAP of levels to compare the probe with.
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
