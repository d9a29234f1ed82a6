"""Scores of HEAR's tasks from the logits of a predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from eat.errors import ManifestError
from eat.evaluation.metrics import accuracy, mean_average_precision
from hear.tasks import Clips, Event, HearTask

ONSET_TOLERANCE_MS = {"event_onset_50ms_fms": 50, "event_onset_200ms_fms": 200}
POST_PROCESSING = {"median_filter_ms": [250], "min_duration": [125, 250]}


def auc(logits: Tensor, targets: Tensor) -> float:
    """Return the area under the ROC curve, the mean over the classes.

    Classes without positive or without negative clips are ignored.
    """
    ranks = torch.tensor(pd.DataFrame(logits.numpy()).rank().to_numpy())
    positives = targets.double().sum(dim=0)
    negatives = len(targets) - positives
    above = (ranks * targets).sum(dim=0) - positives * (positives + 1) / 2
    return (above / (positives * negatives)).nanmean().item()


SCENE_SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "top1_acc": accuracy,
    "pitch_acc": accuracy,
    "mAP": mean_average_precision,
    "aucroc": auc,
}


def find_events(
    logits: Tensor, times: Tensor, median_ms: float, min_duration_ms: float
) -> list[Event]:
    """Return the events in the frames of a file: logits `[T, C]`, times in ms `[T]`."""
    hop = float(times[1] - times[0]) if len(times) > 1 else 1.0
    width = max(1, round(median_ms / hop))
    active = median_filter(logits.sigmoid().numpy(), size=(width, 1)) > 0.5
    padded = np.pad(active, ((1, 1), (0, 0))).astype(int)
    found = []
    for label, edges in enumerate(np.diff(padded, axis=0).T):
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        for start, end in zip(
            times[starts].tolist(), times[ends].tolist(), strict=True
        ):
            if end - start >= min_duration_ms:
                found.append(Event(label, start, end))
    return found


def onset_matches(
    reference: Sequence[Event], found: Sequence[Event], tolerance_ms: float
) -> int:
    """Return the largest number of pairs of one class with onsets that close."""
    matches = 0
    for label in {event.label for event in reference}:
        a, b = (
            sorted(event.start for event in events if event.label == label)
            for events in (reference, found)
        )
        while a and b:  # on a line, matching from the end is optimal
            if abs(a[-1] - b[-1]) <= tolerance_ms:
                matches += 1
                a.pop(), b.pop()
            else:
                (a if a[-1] > b[-1] else b).pop()
    return matches


def onset_f_measure(
    reference: Sequence[Sequence[Event]],
    found: Sequence[Sequence[Event]],
    tolerance_ms: float,
) -> float:
    """Return the F-measure of onsets over all files and classes."""
    pairs = zip(reference, found, strict=True)
    matches = sum(onset_matches(a, b, tolerance_ms) for a, b in pairs)
    total = sum(map(len, reference)) + sum(map(len, found))
    return 2 * matches / max(1, total)


class TaskScore:
    """The first score that a task names; for events, with ways of post-processing."""

    def __init__(self, task: HearTask) -> None:
        self.name = task.metadata["evaluation"][0]
        known = ONSET_TOLERANCE_MS if task.is_event_task else SCENE_SCORES
        if self.name not in known:
            raise ManifestError(
                f"{task.folder}: no score '{self.name}' (for such tasks: {list(known)})"
            )
        self.variants: list[tuple[float, float]] = [(0, 0)]
        if task.is_event_task:
            given = task.metadata.get("evaluation_params", {})
            grid = given.get("event_postprocessing_grid", POST_PROCESSING)
            self.variants = list(
                product(grid["median_filter_ms"], grid["min_duration"])
            )

    def __call__(
        self, logits: Tensor, clips: Clips, variant: tuple[float, float]
    ) -> float:
        """Score the logits of clips or frames `[M, C]`."""
        if self.name in SCENE_SCORES:
            return SCENE_SCORES[self.name](logits, clips.y)
        per_file = logits.split([len(times) for times in clips.times])
        found = [
            find_events(one, times, *variant)
            for one, times in zip(per_file, clips.times, strict=True)
        ]
        return onset_f_measure(clips.events, found, ONSET_TOLERANCE_MS[self.name])
