"""Figures 3 and 4: the paper's points and those of runs, in the style of reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from eat.report.style import GRAY, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OFFSET = 0.06  # between curves, so that their error bars do not overlap


@dataclass(frozen=True)
class Curve:
    """Scores over x."""

    name: str
    points: Mapping[str, Sequence[float]]  # the score of each run, by x
    color: str
    style: str  # matplotlib's format, such as "o-"


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[str]  # all values of x in order, evenly spaced
    levels: Mapping[str, float] = field(default_factory=dict)  # horizontal lines


def plot_panels(panels: Sequence[Panel], path: Path, x: str, y: str) -> None:
    """Draw panels side by side, each with its own y axis.

    A curve goes through the mean of the runs; error bars show the standard deviation,
    dots the single runs. `x` and `y` are the labels of the axes.
    """
    figure = new_figure(1 + 4.6 * len(panels), 4.4)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        for number, curve in enumerate(panel.curves):
            _draw(axes, curve, panel.ticks, OFFSET * number)
        for (name, level), style in zip(panel.levels.items(), cycle((":", "-."))):
            axes.axhline(level, color=GRAY, linestyle=style, label=name)
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.set_xlim(-0.4, len(panel.ticks) - 0.6)
        axes.margins(y=0.12)
        tidy(axes, panel.title, x, y)
        if panel.curves:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncol": 2}
            axes.legend(**below, frameon=False, fontsize=10)
    figure.savefig(path)


def _draw(axes: Axes, curve: Curve, ticks: Sequence[str], offset: float) -> None:
    xs = [ticks.index(x) + offset for x in curve.points]
    means = [statistics.mean(scores) for scores in curve.points.values()]
    color = curve.color
    axes.plot(xs, means, curve.style, color=color, linewidth=2, label=curve.name)
    for x, mean, scores in zip(xs, means, curve.points.values(), strict=True):
        if len(scores) > 1:
            std = statistics.stdev(scores)
            axes.errorbar(x, mean, std, color=color, capsize=4, linewidth=1.2)
            places = [x] * len(scores)
            axes.plot(places, scores, "o", color=color, markersize=4, alpha=0.5)
