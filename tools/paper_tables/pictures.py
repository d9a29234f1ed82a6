"""Figures 3 and 4: the paper's points and those of runs, in the reports' style."""

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

ASIDE = 0.06  # between curves, so that their bars do not hide each other


@dataclass(frozen=True)
class Curve:
    """Scores over x.

    Attributes
    ----------
    name
        In the legend.
    points
        From x to the score of each run.
    color
        Of line, bars and dots.
    ours
        Whether it comes of runs; the paper's curves are dashed.
    """

    name: str
    points: Mapping[str, Sequence[float]]
    color: str
    ours: bool


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    title
        Above it.
    curves
        What it shows.
    ticks
        All values of x, in order; they stand evenly spaced.
    levels
        Horizontal lines, by name.
    """

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[str]
    levels: Mapping[str, float] = field(default_factory=dict)


def plot_panels(panels: Sequence[Panel], path: str | Path, x: str, y: str) -> None:
    """Draw panels side by side, each with its own scale of y.

    Where a point has several runs, the curve goes through their mean, a bar shows the
    standard deviation, and every run has a dot.

    Parameters
    ----------
    panels
        What to draw.
    path
        The picture to write.
    x, y
        Names of the axes.
    """
    figure = new_figure(1 + 4.6 * len(panels), 4.4)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        for number, curve in enumerate(panel.curves):
            _draw(axes, curve, panel.ticks, ASIDE * number)
        for (name, level), style in zip(panel.levels.items(), cycle((":", "-."))):
            axes.axhline(level, color=GRAY, linestyle=style, label=name)
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.set_xlim(-0.4, len(panel.ticks) - 0.6)
        axes.margins(y=0.12)
        tidy(axes, panel.title, x, y)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncol": 2}
        axes.legend(**below, frameon=False, fontsize=10)
    figure.savefig(path)


def _draw(axes: Axes, curve: Curve, ticks: Sequence[str], aside: float) -> None:
    places = [ticks.index(at) + aside for at in curve.points]
    runs = list(curve.points.values())
    means = [statistics.mean(scores) for scores in runs]
    style = {"color": curve.color, "linewidth": 2, "label": curve.name}
    axes.plot(places, means, "o-" if curve.ours else "D--", **style)
    for place, mean, scores in zip(places, means, runs, strict=True):
        if len(scores) > 1:
            spread = statistics.stdev(scores)
            bar = {"color": curve.color, "capsize": 4, "linewidth": 1.2}
            axes.errorbar(place, mean, spread, **bar)
            dots = {"color": curve.color, "markersize": 4, "alpha": 0.5}
            axes.plot([place] * len(scores), scores, "o", **dots)
