"""Evaluate a checkpoint on tasks of HEAR 2021.

    python tools/run_hear.py MODEL TASK_FOLDER... [--model_options '{"layers": 6}']

A TASK_FOLDER is a task as published on Zenodo (10.5281/zenodo.5885750), unpacked. The
embeddings of a task are computed once and kept in memory; a grid of predictors is
trained on the first fold, and the best settings on every fold. Prints the test score.
See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from eat.adapters.hear import (
    HearModel,
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)
from eat.errors import ExperimentError, exit_on_error
from eat.utils.arguments import integer
from hear.predictor import MAX_EPOCHS, fit, predict, sample_grid
from hear.scores import TaskScore
from hear.tasks import Clips, HearTask


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError('must be like {"layers": 6}')
    return options


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="model folder, official .pt file or Hugging Face folder")
    add("tasks", nargs="+", type=Path, metavar="TASK_FOLDER", help="tasks of HEAR")
    how = "JSON: layers, pooling, hop_ms (see eat.adapters.hear)"
    add("--model_options", type=_options, default={}, metavar="JSON", help=how)
    add("--grid_points", type=integer(1), default=8, help="predictors to compare")
    add("--max_epochs", type=integer(1), default=MAX_EPOCHS, help="of a predictor")
    add("--seed", type=integer(0), default=42, help="random seed of the predictors")
    return parser.parse_args(argv)


def _check_options(model: HearModel) -> None:
    second = torch.zeros(1, model.sample_rate)
    try:
        if get_scene_embeddings(second, model).ndim != 2:
            raise ValueError("layers: a list (choose one index)")
        get_timestamp_embeddings(second, model)
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"--model_options: {error}") from None


def _join(parts: Sequence[Clips]) -> Clips:
    """Join training splits, of which only embeddings and labels are used."""
    return Clips(
        torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    )


def evaluate(task: HearTask, model: HearModel, options: argparse.Namespace) -> str:
    """Return a line with the task's score on the test split, the mean over folds."""
    score = TaskScore(task)
    folds = task.splits()
    names = {name for train, *others in folds for name in (*train, *others)}
    clips = {name: task.encode(name, model) for name in sorted(names)}
    shared = (score, task.is_multi_label, model.model.device, options.seed)

    def fitted(train: list[str], valid: str, settings: Any) -> Any:
        data = _join([clips[name] for name in train])
        return fit(data, clips[valid], settings, *shared, options.max_epochs)

    points = [
        (fitted(*folds[0][:2], settings), settings)
        for settings in sample_grid(options.grid_points, options.seed)
    ]
    first, settings = max(points, key=lambda point: point[0].score)
    results = [first, *(fitted(*fold[:2], settings) for fold in folds[1:])]
    tests = [
        score(predict(result.network, clips[test].x), clips[test], result.variant)
        for result, (_, _, test) in zip(results, folds, strict=True)
    ]
    validation = mean(result.score for result in results)
    return (
        f"{task.metadata['task_name']}: {score.name} {mean(tests):.4f} "
        f"(validation {validation:.4f}, folds {len(folds)}, {settings})"
    )


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate each task and print its score."""
    options = _parse(argv)
    tasks = [HearTask(folder) for folder in options.tasks]
    model = load_model(options.model, **options.model_options)
    _check_options(model)
    for task in tasks:
        print(evaluate(task, model, options), flush=True)


if __name__ == "__main__":
    main()
