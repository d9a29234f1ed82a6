"""The report's charts of numbers, as SVG: curves of metrics, confusion of classes.

A line of run n has the id ``...-run-n``, by which the page shows and hides it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eat.report.runs import Run
from eat.report.style import COLORS, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 400  # of a line; more are averaged
LOG_RANGE = 30.0  # a loss that falls by more is drawn on a logarithmic scale
_NOT_METRICS = {"kind", "epoch", "step"}


def run_color(number: int) -> str:
    """Return the color of run `number`, the same in all charts."""
    return COLORS[number % len(COLORS)]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of all logged metrics, losses first, as they were logged."""
    names: dict[str, None] = {}
    for run in runs:
        if run.metrics is not None:
            names |= dict.fromkeys(run.metrics.columns)
    found = [name for name in names if name not in _NOT_METRICS]
    return sorted(found, key=lambda name: "loss" not in name)


def metric_curve(runs: Sequence[Run], name: str) -> str | None:
    """Draw a metric of all runs that logged it, over steps; None if there is none."""
    figure = new_figure(4.6, 2.9)
    axes = figure.subplots()
    values = []
    for number, (run, style) in enumerate(zip(runs, cycle(("-", "--", ":", "-.")))):
        points = _points(run, name)
        if points.empty:
            continue
        values.append(points[name].to_numpy())
        line: dict[str, Any] = {"color": run_color(number), "linewidth": 1.6}
        line |= {"linestyle": style, "marker": "o" if len(points) < 15 else None}
        axes.plot(points["step"], points[name], label=run.name, ms=4, **line)
        axes.lines[-1].set_gid(f"{name}-run-{number}")
    if not values:
        return None
    joined = np.concatenate(values)
    if joined.min() > 0 and joined.max() > LOG_RANGE * joined.min():
        axes.set_yscale("log")
    tidy(axes, name.replace("_", " "), "step", "")
    return svg(figure, name)


def _points(run: Run, name: str) -> pd.DataFrame:
    """Return the columns ``step`` and `name`, at most `MAX_POINTS` rows."""
    if run.metrics is None or name not in run.metrics:
        return pd.DataFrame(columns=["step", name])
    points = run.metrics[["step", name]].apply(pd.to_numeric, errors="coerce")
    points = points.replace([np.inf, -np.inf], np.nan).dropna().astype(float)
    if len(points) > MAX_POINTS:
        parts = np.arange(len(points)) * MAX_POINTS // len(points)
        points = points.groupby(parts).mean()
    return points


def confusion_chart(counts: pd.DataFrame, name: str) -> str:
    """Draw a confusion matrix as the share of each true class, row by row."""
    total = counts.sum(axis=1).to_numpy()[:, None]
    shares = counts.to_numpy() / np.maximum(total, 1)
    size = max(3.5, 0.26 * len(counts) + 2)
    figure = new_figure(size + 0.6, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= 20:
        for (row, column), count in np.ndenumerate(counts.to_numpy()):
            if count:
                color = "white" if shares[row, column] > 0.6 else "black"
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
                axes.text(column, row, str(count), color=color, **style)
    ticks = range(len(counts))
    axes.set_xticks(ticks, list(counts.columns), rotation=90, fontsize=8)
    axes.set_yticks(ticks, list(counts.index), fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7)
    return svg(figure, name)


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element; `name` keeps the ids of charts apart."""
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Its size is the page's concern; the view box keeps the proportions.
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1).replace(
        "<svg", '<svg role="img"', 1
    )
