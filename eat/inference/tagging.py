"""From the scores of a classifier to tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from eat.audio.frontend import SAMPLE_RATE
from eat.inference.encoding import encode_windows
from eat.inference.options import check_integer, check_number
from eat.inference.results import Tag
from eat.inference.windows import FRAME, Recording, Window, Windowing, WindowMean

Score = Callable[[Sequence[Window]], Tensor]


def check_top(top_k: int | None, threshold: float | None) -> None:
    """Raise `ValueError` unless these can select tags."""
    if top_k is not None:
        check_integer("top_k", top_k, 1)
    if threshold is not None:
        check_number("threshold", threshold, 0, 1)


def mean_scores(
    recordings: Sequence[Recording], windowing: Windowing, score: Score, at_once: int
) -> Tensor:
    """Return the scores of each recording, averaged over its windows `[B, C]`."""
    means = [WindowMean() for _ in recordings]
    for number, _, scores in encode_windows(recordings, windowing, score, at_once):
        means[number].add(scores)
    return torch.stack([mean.result() for mean in means])


def window_scores(
    recording: Recording, windowing: Windowing, score: Score, at_once: int
) -> Iterator[tuple[Tensor, tuple[float, float]]]:
    """Yield the scores `[C]` of each window, and its start and end in seconds."""
    encoded = encode_windows([recording], windowing, score, at_once)
    for _, window, scores in encoded:
        start = window.start * FRAME
        end = start + min(len(window.wav), windowing.size * FRAME)
        yield scores, (start / SAMPLE_RATE, end / SAMPLE_RATE)


def top_tags(
    scores: Tensor,
    times: tuple[float, float],
    labels: Sequence[str] | None,
    top_k: int | None,
    threshold: float | None,
) -> list[Tag]:
    """Return the tags with the highest scores `[C]`, the highest first.

    At most `top_k`, none below the threshold. Without labels a tag has the number of
    its class.
    """
    # Stable, so that classes of equal scores keep their order.
    values, classes = scores.cpu().sort(descending=True, stable=True)
    pairs = zip(values[:top_k].tolist(), classes[:top_k].tolist(), strict=True)
    return [
        Tag(labels[number] if labels else str(number), value, *times)
        for value, number in pairs
        if threshold is None or value >= threshold
    ]
