"""The clips of a list by row: readable or not, with warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from eat.audio.checks import signal_warnings
from eat.audio.frontend import SAMPLE_RATE
from eat.data.dataset import Batch, ClipDataset, collate
from eat.data.shards import read_clip
from eat.errors import AudioError
from eat.inference.clip_list import ClipList


def clips_up_to(samples: int, clips: ClipList) -> ClipDataset:
    """Return the clips as a dataset; of longer ones, one sample more is read."""
    seconds = (samples + 1) / SAMPLE_RATE
    read = partial(read_clip, sample_rate=SAMPLE_RATE, max_seconds=seconds)
    return ClipDataset(clips.clips, clips.data_root, None, read)


class ClipRows(Dataset):
    """Clips by row; for an unreadable clip, the reason in its place."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __getitem__(self, row: int) -> tuple[int, dict[str, Any] | str]:
        try:
            item = self.clips[row]
            return row, {**item, "warnings": "; ".join(signal_warnings(item["sig"]))}
        except AudioError as error:
            return row, str(error)


@dataclass(frozen=True)
class LoadedRows:
    """The clips of a batch: those that fit into the model, and the longer ones.

    By row, why others cannot be read, and warnings.
    """

    rows: list[int]
    batch: Batch | None
    long: list[int]
    failures: dict[int, str]
    warnings: dict[int, str]


def collate_up_to(samples: int) -> Callable[[list], LoadedRows]:
    """Return the collate function; of longer clips only the rows are kept."""
    return partial(_collate, samples=samples)


def _collate(items: list[tuple[int, dict[str, Any] | str]], samples: int) -> LoadedRows:
    failures = {row: item for row, item in items if isinstance(item, str)}
    readable = {row: item for row, item in items if not isinstance(item, str)}
    warnings = {row: i["warnings"] for row, i in readable.items() if i["warnings"]}
    long = [row for row, item in readable.items() if len(item["sig"]) > samples]
    short = {row: item for row, item in readable.items() if row not in long}
    batch = collate([*short.values()]) if short else None
    return LoadedRows([*short], batch, long, failures, warnings)
