"""The style of all pictures; matplotlib is imported only when one is drawn.

The colors are from the color-blind safe palette of Okabe and Ito (2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GRAY = "#6b6b6b"
COLORS = (BLUE, VERMILION, GREEN, PURPLE)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure, sizes in inches, without a display or global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Set the titles of axes and remove needless lines."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
