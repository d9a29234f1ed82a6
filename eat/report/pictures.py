"""Pictures of masked clips, and bar charts of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from eat.report.style import COLORS, GRAY, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_COPIES = 4


def plot_masks(
    spec: Tensor, mask: Tensor, path: str | Path | IO[bytes], seconds: float
) -> None:
    """Draw a clip and what the student sees of it in some masked copies.

    `spec` is log-mel `[T, F]`, `mask` `[K, T // 16, F // 16]` true at masked patches.
    """
    shown, bins = min(len(mask), SHOWN_COPIES), spec.shape[1]
    side = bins // mask.shape[2]
    figure = new_figure(9, 1.9 + 1.35 * shown)
    panels = figure.subplots(shown + 1, 1, sharex=True, sharey=True)
    panels[0].set_yticks([0, bins // 2, bins])
    low, high = spec.quantile(torch.tensor([0.01, 0.995], device=spec.device)).tolist()
    style = {"cmap": "magma", "vmin": low, "vmax": high, "interpolation": "nearest"}
    style |= {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, bins)}
    for k, axes in enumerate(panels):
        visible, title = spec, "teacher input: the full clip"
        if k > 0:
            masked = mask[k - 1].bool().to(spec.device)
            masked = masked.repeat_interleave(side, 0).repeat_interleave(side, 1)
            visible = spec.masked_fill(masked, float("nan"))
            title = f"student input: masked copy {k} of {len(mask)}"
        image = axes.imshow(visible.T.cpu().numpy(), **style)
        axes.set_facecolor("#c9c9c9")  # visible where the picture is NaN
        axes.set_title(title, loc="left", fontsize=11)
    panels[-1].set_xlabel("time (s)", fontsize=11)
    figure.supylabel("mel bin", fontsize=11)
    figure.colorbar(image, ax=panels, label="log-mel energy", aspect=40, pad=0.01)
    share = mask.float().mean().item()
    title = f"Masked copies of a clip: {share:.0%} of the patches masked (gray)"
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.savefig(path)


def _bar(axes: Axes, at: float, runs: Sequence[float], color: str) -> None:
    """Draw the mean of runs, their standard deviation, and each run."""
    values = pd.Series(runs, dtype=float)
    mean, std = values.mean(), values.std() if len(values) > 1 else 0.0
    axes.barh(at, mean, height=0.7, color=color, alpha=0.45)
    # Dots are offset so that equal runs stay visible.
    step = 0.2 / max(2, len(values) - 1)
    heights = [at + 0.05 + step * i for i in range(len(values))]
    axes.plot(values, heights, "o", color=color, mec="white", mew=0.7, ms=6)
    if std:
        axes.errorbar(mean, at - 0.17, xerr=std, color="black", capsize=4)
    style: dict[str, Any] = {"va": "center", "fontsize": 11}
    style |= {"xytext": (9, 0), "textcoords": "offset points"}
    axes.annotate(f"{mean:.3f}", (max(values.max(), mean + std), at), **style)


def plot_comparison(
    rows: Sequence[Mapping[str, Any]], path: str | Path, chance: float
) -> None:
    """Draw mAP as bars, with the standard deviation over seeds and every run.

    A row has ``name``, ``runs`` (the mAP of each seed) and ``group``, a heading.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure = new_figure(9, 1.1 + 0.42 * (len(rows) + len(groups)))
    axes = figure.subplots()
    places, labels, at = [], [], 0
    heading: dict[str, Any] = {"weight": "bold", "fontsize": 11, "va": "center"}
    heading["bbox"] = {"color": "white", "pad": 1}  # over the chance line
    for group, color in zip(groups, cycle(COLORS)):
        axes.text(0.004, at + 0.1, group, **heading)
        for row in (row for row in rows if row["group"] == group):
            at += 1
            places.append(at)
            labels.append(row["name"])
            _bar(axes, at, row["runs"], color)
        at += 1
    axes.axvline(chance, color=GRAY, linestyle="--", linewidth=1.2)
    text = f"chance {chance:.3f}"
    axes.text(chance, -0.6, text, color=GRAY, fontsize=10, ha="center")
    axes.set_yticks(places, labels, fontsize=11)
    axes.set_ylim(at - 0.4, -0.5)  # first row at the top
    axes.set_xlim(right=1.12 * max(max(row["runs"]) for row in rows))
    tidy(axes, "", "mAP (bar: mean, line: ± standard deviation, dot: one run)", "")
    axes.grid(visible=False, axis="y")
    figure.savefig(path)
