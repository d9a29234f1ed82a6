"""One self-contained HTML page about one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eat._version import __version__
from eat.errors import AudioError, EATError
from eat.report.charts import confusion_chart, metric_curve, metric_names, run_color
from eat.report.clips import (
    attention_picture,
    load_clip,
    masks_picture,
    open_checkpoint,
)
from eat.report.runs import Run
from eat.utils.files import write_text

TEMPLATE = "page.html"
MAX_CONFUSIONS = 10
MAX_TEXT = 200  # characters of a value


def write_page(
    runs: Sequence[Run], path: str | Path, clip: str | None = None
) -> list[str]:
    """Write the page; what cannot be drawn is said in it, and returned.

    Raises `AudioError` if a given clip cannot be read.

    Parameters
    ----------
    runs
        One or several runs, see `eat.report.runs.read_runs`.
    path
        The HTML file.
    clip
        A recording for the pictures; by default the first evaluation clip of each run.
    """
    names = metric_names(runs)
    curves = [metric_curve(runs, name) for name in tqdm(names, "curves", disable=None)]
    pictures = [_pictures(run, clip) for run in tqdm(runs, "pictures", disable=None)]
    content = {
        "title": ", ".join(run.name for run in runs),
        "version": __version__,
        "runs": [_overview(run, number) for number, run in enumerate(runs)],
        "settings": compare_settings(runs),
        "curves": list(filter(None, curves)),
        "pictures": pictures,
        "class_ap": class_ap_table(runs),
        "confusions": list(filter(None, map(_confusion, runs))),
        "coverage": [_coverage(run) for run in runs],
        "speed": [(run.name, _speed(run)) for run in runs],
    }
    write_text(path, _render(content))
    return [part["problem"] for part in pictures if part.get("problem")]


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(**content)


def _overview(run: Run, number: int) -> dict[str, Any]:
    """Return the line of a run in the first table."""
    versions = run.results.get("versions") or {}
    parts = (run.results.get(part) for part in ("test", "best", "last"))
    scores: dict[str, Any] = next(filter(None, parts), {})
    return {
        "name": run.name,
        "folder": str(run.folder),
        "color": run_color(number),
        "task": run.settings.get("task", ""),
        "seed": run.settings.get("seed", ""),
        "status": run.status,
        "results": {key: _shown(value) for key, value in scores.items()},
        "revision": (versions.get("git") or versions.get("eat") or "")[:12],
    }


def compare_settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each setting: key, a value for each run, whether they differ."""
    flat = [dict(_flatten(run.settings)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = []
    for key in keys:
        values = [_shown(settings.get(key, "")) for settings in flat]
        rows.append({"key": key, "values": values, "differ": len(set(values)) > 1})
    return rows


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return keys with dots and their values, without what objects refer to."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            if not prefix:  # deeper, objects repeat each other
                pairs += _flatten(value, f"{key}.")
        else:
            # The name of an object's class has the key "!".
            pairs.append((f"{prefix}{key}".removesuffix(".!"), value))
    return pairs


def class_ap_table(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the average precision of each class in each run, the best class first.

    It is sorted by the first run that has such values.
    """
    columns = [(run, number, run.class_ap()) for number, run in enumerate(runs)]
    columns = [column for column in columns if column[2]]
    classes = dict.fromkeys(name for _, _, ap in columns for name in ap)
    rows = [(name, [ap.get(name, nan) for _, _, ap in columns]) for name in classes]
    rows.sort(key=lambda row: (isnan(row[1][0]), -row[1][0]))
    shown = [(run.name, run_color(number)) for run, number, _ in columns]
    return {"runs": shown, "rows": rows}


def _confusion(run: Run) -> dict[str, Any] | None:
    """Return the chart of a run's confusion matrix and its most frequent confusions."""
    counts = run.confusion()
    if counts is None:
        return None
    wrong = [
        (actual, predicted, count)
        for actual, row in counts.to_dict("index").items()
        for predicted, count in row.items()
        if count and actual != predicted
    ]
    wrong.sort(key=lambda pair: -pair[2])
    chart = confusion_chart(counts, f"confusion-{run.name}")
    return {"name": run.name, "chart": chart, "largest": wrong[:MAX_CONFUSIONS]}


def _coverage(run: Run) -> dict[str, Any]:
    """Return the numbers of clips of the run's corpus."""
    subsets = run.coverage()
    columns = dict.fromkeys(
        key
        for counts in subsets.values()
        for key, value in counts.items()
        if not isinstance(value, dict | list)
    )
    rows = [
        (name, [_shown(counts.get(column)) for column in columns])
        for name, counts in subsets.items()
    ]
    return {
        "name": run.name,
        "columns": [column.replace("_", " ") for column in columns],
        "rows": rows,
        "missing": [[_shown(cell) for cell in row] for row in run.rarest_classes()],
        "skipped": run.num_skipped(),
    }


def _speed(run: Run) -> dict[str, str]:
    """Return what the run cost: the figures of its results, else the logged speed."""
    cost = run.results.get("cost") or {}
    if not cost and run.metrics is not None and "clips_per_second" in run.metrics:
        cost = {"clips_per_second": run.metrics["clips_per_second"].median()}
    return {key.replace("_", " "): _shown(value) for key, value in cost.items()}


def _pictures(run: Run, clip: str | None) -> dict[str, Any]:
    """Return the pictures of a clip, or why there are none."""
    try:
        checkpoint = open_checkpoint(run)
        if checkpoint is None:
            return {"name": run.name, "problem": f"{run.name}: has no model yet"}
        path, spec = load_clip(run, checkpoint, clip)
        return {
            "name": run.name,
            "clip": path,
            "masks": masks_picture(run, spec),
            "attention": attention_picture(checkpoint, spec),
        }
    except EATError as error:
        if clip is not None and isinstance(error, AudioError):
            raise  # what was asked for
        return {"name": run.name, "problem": f"{run.name}: no pictures: {error}"}


def _shown(value: Any) -> str:
    """Return a value as a short text."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
