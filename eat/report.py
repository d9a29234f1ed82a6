"""From logs to tables and pictures.

The pictures need matplotlib, which is imported only when one is drawn. Colours are
those of Okabe and Ito (2008), distinct for colour-blind readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#6b6b6b"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
SHOWN_COPIES = 4


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


def new_figure(width: float, height: float) -> Figure:
    """Make a figure, its sizes in inches; needs no display, leaves no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Name the panel and its axes, take away what is not data."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _trace(
    axes: Axes, steps: pd.DataFrame, key: str, colour: str, style: str = "-"
) -> None:
    """Draw a noisy signal faintly and its running median on top."""
    window = max(1, len(steps) // 40)
    smooth = steps[key].rolling(window, center=True, min_periods=1).median()
    axes.plot(steps["step"], steps[key], color=colour, alpha=0.25, linewidth=0.8)
    label = key.replace("_", " ")
    axes.plot(steps["step"], smooth, style, color=colour, linewidth=2, label=label)


def _draw_losses(axes: Axes, steps: pd.DataFrame) -> None:
    from matplotlib.ticker import LogLocator

    for key, colour in (("frame_loss", BLUE), ("utterance_loss", VERMILION)):
        _trace(axes, steps, key, colour)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    tidy(axes, "Losses", "step", "squared error / √width (log)")


def _draw_signals(axes: Axes, steps: pd.DataFrame) -> None:
    # Dashes, since content and target deviation lie on each other when all is well.
    signals = {
        "content": (GREEN, "-"),
        "target_deviation": (BLUE, "--"),
        "prediction_deviation": (VERMILION, "-"),
    }
    for key, (colour, style) in signals.items():
        _trace(axes, steps, key, colour, style)
    axes.set_ylim(0, max(1.2, 1.05 * steps[list(signals)].max(axis=None)))
    tidy(axes, "Collapse signals (healthy near 1)", "step", "share, deviation")


def _draw_probe(
    axes: Axes, epochs: pd.DataFrame, references: Mapping[str, float]
) -> None:
    axes.plot(epochs["step"], epochs["knn_mAP"], "o-", color=PURPLE, label="features")
    for (name, level), style in zip(references.items(), cycle(("--", ":", "-."))):
        axes.axhline(level, color=GREY, linestyle=style, label=name)
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


def plot_masks(spec: Tensor, removed: Tensor, path: str | Path, seconds: float) -> None:
    """Draw a clip and what the student sees of it in some of its masked copies.

    Parameters
    ----------
    spec : Tensor
        ``[T, F]`` log-mel spectrogram.
    removed : Tensor
        ``[K, T // 16, F // 16]``, true where a patch is taken away.
    path : str or Path
        The picture to write.
    seconds : float
        Duration of the T frames.
    """
    shown, bins = min(len(removed), SHOWN_COPIES), spec.shape[1]
    side = bins // removed.shape[2]
    figure = new_figure(9, 1.9 + 1.35 * shown)
    panels = figure.subplots(shown + 1, 1, sharex=True, sharey=True)
    panels[0].set_yticks([0, bins // 2, bins])
    low, high = spec.quantile(torch.tensor([0.01, 0.995], device=spec.device)).tolist()
    style = {"cmap": "magma", "vmin": low, "vmax": high, "interpolation": "nearest"}
    style |= {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, bins)}
    for k, axes in enumerate(panels):
        visible, title = spec, "the teacher hears the whole clip"
        if k > 0:
            hidden = removed[k - 1].bool().to(spec.device)
            hidden = hidden.repeat_interleave(side, 0).repeat_interleave(side, 1)
            visible = spec.masked_fill(hidden, float("nan"))
            title = f"copy {k} of {len(removed)} for the student"
        image = axes.imshow(visible.T.cpu().numpy(), **style)
        axes.set_facecolor("#c9c9c9")  # shows where the picture has NaN
        axes.set_title(title, loc="left", fontsize=11)
    panels[-1].set_xlabel("time (s)", fontsize=11)
    figure.supylabel("mel bin (low at the bottom)", fontsize=11)
    figure.colorbar(image, ax=panels, label="log-mel energy", aspect=40, pad=0.01)
    share = removed.float().mean().item()
    figure.suptitle(
        f"Masked copies of a clip: {share:.0%} of the patches removed (grey)",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(path)


def _bar(axes: Axes, at: float, runs: Sequence[float], colour: str) -> None:
    """Draw the mean of some runs, their standard deviation, and each of them."""
    values = pd.Series(runs, dtype=float)
    mean, spread = values.mean(), values.std() if len(values) > 1 else 0.0
    axes.barh(at, mean, height=0.7, color=colour, alpha=0.45)
    # One dot below the other, so that equal runs stay countable.
    heights = [at + 0.05 + 0.1 * i for i in range(len(values))]
    axes.plot(values, heights, "o", color=colour, mec="white", mew=0.7, ms=6)
    if spread:
        axes.errorbar(mean, at - 0.17, xerr=spread, color="black", capsize=4)
    axes.annotate(
        f"{mean:.3f}",
        (max(values.max(), mean + spread), at),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=11,
    )


def plot_comparison(
    rows: Sequence[Mapping[str, Any]], path: str | Path, chance: float
) -> None:
    """Draw a table of mAP as bars, with the spread over seeds and every run.

    Parameters
    ----------
    rows : sequence of mappings
        ``name``, ``runs`` (the mAP of each seed) and ``group`` (the heading under
        which the row stands; rows of one group follow each other).
    path : str or Path
        The picture to write.
    chance : float
        The mAP of guessing.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure = new_figure(9, 1.1 + 0.42 * (len(rows) + len(groups)))
    axes = figure.subplots()
    places, labels, at = [], [], 0
    heading = {"weight": "bold", "fontsize": 11, "va": "center"}
    heading["bbox"] = {"color": "white", "pad": 1}  # over the line of chance
    for group, colour in zip(groups, cycle(COLOURS)):
        axes.text(0.004, at + 0.1, group, **heading)
        for row in (row for row in rows if row["group"] == group):
            at += 1
            places.append(at)
            labels.append(row["name"])
            _bar(axes, at, row["runs"], colour)
        at += 1
    axes.axvline(chance, color=GREY, linestyle="--", linewidth=1.2)
    note = {"color": GREY, "fontsize": 10, "ha": "center"}
    axes.text(chance, -0.6, f"chance {chance:.3f}", **note)
    axes.set_yticks(places, labels, fontsize=11)
    axes.set_ylim(at - 0.4, -0.5)  # rows go down the page
    axes.set_xlim(right=1.12 * max(max(row["runs"]) for row in rows))
    tidy(axes, "", "mAP (bar: mean, line: ± standard deviation, dot: one seed)", "")
    axes.grid(visible=False, axis="y")
    figure.savefig(path)


def _cell(value: Any) -> str:
    """Write a table cell: three decimals for a float, a dash for nothing."""
    if value is None or value != value:  # NaN differs from itself
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).replace("|", r"\|")


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as a Markdown table, numbers to the right.

    Parameters
    ----------
    rows : sequence of mappings
        From column name to value; floats are written with three decimals, what is
        missing or NaN as a dash.
    columns : sequence of str
        The columns to show, in order.

    Returns
    -------
    str
        The table, without a final newline.
    """
    numeric = [
        all(isinstance(row.get(c, 0.0), int | float | None) for row in rows)
        for c in columns
    ]
    lines = [list(columns), ["--:" if n else ":--" for n in numeric]]
    lines += [[_cell(row.get(c)) for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
