"""Pictures of the study, in the style of reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat.report.style import BLUE, COLORS, GRAY, GREEN, VERMILION, new_figure, tidy
from eat.utils.files import atomic_path
from evidence.quoting import Numbers
from evidence.references import CHANCE, UNTRAINED
from evidence.studies import Study
from evidence.tables import names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "sD^vPX<>"
BLACK = "#222222"  # of the reference
PALETTE = 64  # colors of a picture, which keep it under 100 kB
WEIGHTS = ("student", "teacher")
LOGGED = (
    "frame_loss",
    "prediction_std",
    "target_std",
    "between_clip_variance",
    "effective_rank",
)
BOUNDED = ("prediction_std", "target_std", "between_clip_variance")
SHOWN = {  # probes of all layers
    "Linear, both": "linear",
    "Linear, patches": "linear_mean",
    "Linear, CLS": "linear_cls",
}
Series = Mapping[int, float]  # scores of one run by step or layer


@dataclass(frozen=True)
class Look:
    """How a curve is drawn."""

    color: str | tuple[float, ...]
    marker: str
    line: str = "-"
    width: float = 1.8
    band: bool = True


def draw(axes: Axes, runs: Sequence[Series], look: Look, label: str) -> None:
    """Draw the mean over runs, and perhaps a band of one standard deviation around it.

    Points that some runs do not have are omitted.
    """
    xs = [x for x in runs[0] if all(x in run for run in runs)]
    scores = [[run[x] for run in runs] for x in xs]
    means = [statistics.mean(s) for s in scores]
    style: dict[str, Any] = {"color": look.color, "marker": look.marker}
    style |= {"linestyle": look.line, "linewidth": look.width, "markersize": 4}
    axes.plot(xs, means, label=label, **style)
    if look.band and len(runs) > 1:
        stds = [statistics.stdev(s) for s in scores]
        low, high = (
            [m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(xs, low, high, color=look.color, alpha=0.15, linewidth=0)


def curves(
    numbers: Numbers, name: str, metric: str, weights: str = "student"
) -> list[Series]:
    """Return the scores over steps of each run of a row."""
    found = [
        {p["step"]: p[metric] for p in result["curve"] if p["weights"] == weights}
        for result in numbers.rows[name].values()
    ]
    return [run for run in found if run]


def plot_learning_curve(numbers: Numbers, path: Path, name: str = "default") -> None:
    """Draw the probes of student and teacher over steps; baselines are lines."""
    figure, both = _student_and_teacher("steps")
    shown = {
        "linear, both": ("linear", Look(BLACK, "D")),
        "linear, patches": ("linear_mean", Look(BLUE, "o")),
        "linear, CLS": ("linear_cls", Look(VERMILION, "s")),
        "kNN, last layer": ("knn", Look(GREEN, "^")),
    }
    for axes, weights in zip(both, WEIGHTS, strict=True):
        for label, (metric, look) in shown.items():
            if runs := curves(numbers, name, metric, weights):
                draw(axes, runs, look, label)
        _draw_baselines(axes, numbers)
    _legend_below(figure, both[0])
    _save(figure, path)


def plot_layers(numbers: Numbers, path: Path, name: str = "default") -> None:
    """Draw the linear probe of each layer: student and teacher, CLS and mean."""
    figure, both = _student_and_teacher("layer")
    untrained = [scores["layers"] for scores in numbers.baselines.get(UNTRAINED, ())]
    for axes, weights in zip(both, WEIGHTS, strict=True):
        layers = [result["layers"] for result in numbers.rows[name].values()]
        trained = [found[weights] for found in layers if weights in found]
        for scores, line, suffix in (
            (trained, "-", ""),
            (untrained, "--", f", {UNTRAINED}"),
        ):
            for pooling, color in (("mean", BLUE), ("cls", VERMILION)):
                runs = [dict(enumerate(s[f"linear_{pooling}"])) for s in scores]
                label = f"{pooling if pooling == 'mean' else 'CLS'}{suffix}"
                if runs:
                    draw(axes, runs, Look(color, "o", line), label)
                    axes.set_xticks(list(runs[0]))
    _legend_below(figure, both[0])
    _save(figure, path)


def _student_and_teacher(x: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with two axes that share the scores."""
    figure = new_figure(11, 4.6)
    both = list(figure.subplots(1, 2, sharey=True))
    for axes, weights in zip(both, WEIGHTS, strict=True):
        tidy(axes, weights.title(), x, "mAP" if axes is both[0] else "")
    return figure, both


def _draw_baselines(axes: Axes, numbers: Numbers) -> None:
    shown = [name for name in numbers.baselines if name != CHANCE]
    for name, line in zip(shown, (":", "-.", "--"), strict=False):
        level = statistics.mean(numbers.points(name, "linear"))
        axes.axhline(level, color=GRAY, linestyle=line, linewidth=1.4, label=name)


def _legend_below(figure: Figure, axes: Axes, columns: int = 3) -> None:
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles, labels, frameon=False, fontsize=10, **place)


def _save(figure: Figure, path: Path) -> None:
    from PIL import Image

    picture = BytesIO()
    figure.savefig(picture, dpi=110)
    with atomic_path(path) as partial:
        Image.open(picture).convert("RGB").quantize(PALETTE).save(partial, "PNG")


def plot_study(study: Study, numbers: Numbers, path: Path) -> None:
    """Draw the linear probes of the rows over steps, and the differences at the end."""
    figure = new_figure(16, 4.6)
    *over_steps, end = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.8))
    names = [name for name in names_of(study) if name in numbers.rows]
    looks = _looks(names, study.reference)
    for axes, (title, metric) in zip(over_steps, SHOWN.items(), strict=True):
        for name, look in looks.items():
            draw(axes, curves(numbers, name, metric), look, study.label(name))
        label = "mAP, linear probe" if axes is over_steps[0] else ""
        tidy(axes, title, "steps", label)
    _draw_differences(end, study, numbers, looks)
    for axes in (*over_steps, end):
        axes.locator_params(axis="x", nbins=6)
    _legend_below(figure, over_steps[0], 9)
    _save(figure, path)


def plot_log(numbers: Numbers, name: str, healthy: str, path: Path) -> None:
    """Draw what a run logs beside a healthy one, seed 1 of both."""
    figure = new_figure(16, 3.2)
    looks = {healthy: Look(GRAY, "o"), name: Look(VERMILION, "s")}
    for axes, metric in zip(figure.subplots(1, len(LOGGED)), LOGGED, strict=True):
        for row, look in looks.items():
            log = numbers.rows[row][1]["log"]
            values = zip(log["step"], log[metric], strict=True)
            points = {step: value for step, value in values if value is not None}
            draw(axes, [points], look, row)
        tidy(axes, metric, "steps", "")
        axes.set_ylim(0, 1.05 if metric in BOUNDED else None)
        axes.locator_params(axis="x", nbins=4)
    _legend_below(figure, axes)
    _save(figure, path)


def _draw_differences(
    axes: Axes, study: Study, numbers: Numbers, looks: Mapping[str, Look]
) -> None:
    """Draw the difference of each row from the reference with its interval."""
    axes.axvline(0, color=BLACK, linewidth=1)
    others = [name for name in looks if name != study.reference]
    for place, name in enumerate(others):
        if pair := numbers.comparisons.get(f"{name} - {study.reference}"):
            found, look = pair["linear"], looks[name]
            value = found["difference"]
            error = [[value - found["low"]], [found["high"] - value]]
            style: dict[str, Any] = {"color": look.color, "fmt": look.marker}
            axes.errorbar(value, place, xerr=error, capsize=4, **style)
    axes.set_yticks(range(len(others)), [study.label(name) for name in others])
    axes.set_ylim(max(len(others), 1) - 0.5, -0.5)  # the first row at the top
    title = f"At the end, minus {study.label(study.reference)}"
    tidy(axes, title, "difference in mAP, 95% interval", "")


def _looks(names: Sequence[str], reference: str) -> dict[str, Look]:
    """Return a look for each row: distinct colors, ordered ones for many rows."""
    from matplotlib import colormaps

    others = [name for name in names if name != reference]
    many = len(others) > len(COLORS)
    colors: Sequence[Any] = COLORS
    if many:  # without bands, which would cover each other
        colors = [
            colormaps["viridis"](0.95 * i / len(others)) for i in range(len(others))
        ]
    looks = {reference: Look(BLACK, "o", width=2.6, band=not many)}
    looks |= {
        name: Look(color, marker, band=not many)
        for name, color, marker in zip(others, colors, cycle(MARKERS), strict=False)
    }
    return {name: looks[name] for name in names}
