"""Figures 3 and 4: the paper's points and those of runs, in the style of reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def plot_curves(
    curves: Sequence[Curve],
    ticks: Sequence[str],
    path: Path,
    x: str,
    y: str,
    levels: Mapping[str, float],
) -> None:
    """Draw curves over evenly spaced ticks, all values of x in order.

    A curve goes through the mean of the runs; error bars show the standard deviation,
    dots the single runs. `levels` are horizontal lines, `x` and `y` the labels of the
    axes.
    """
    figure = new_figure(5.6, 4.4)
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        _draw(axes, curve, ticks, OFFSET * number)
    for (name, level), style in zip(levels.items(), cycle((":", "-."))):
        axes.axhline(level, color=GRAY, linestyle=style, label=name)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    axes.margins(y=0.12)
    tidy(axes, "", x, y)
    if curves:
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
        axes.legend(**place, ncol=2, frameon=False, fontsize=10)
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
