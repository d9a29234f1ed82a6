"""The clips of a manifest by row: readable or not, with warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from eat.audio.checks import signal_warnings
from eat.data.dataset import Batch, ClipDataset, collate
from eat.errors import AudioError


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
    """The readable clips of a batch; by row, why others are not, and warnings."""

    rows: list[int]
    batch: Batch | None
    failures: dict[int, str]
    warnings: dict[int, str]


def collate_rows(items: list[tuple[int, dict[str, Any] | str]]) -> LoadedRows:
    """Collate the readable clips of a batch; keep reasons and warnings by row."""
    failures = {row: item for row, item in items if isinstance(item, str)}
    readable = {row: item for row, item in items if not isinstance(item, str)}
    warnings = {row: i["warnings"] for row, i in readable.items() if i["warnings"]}
    batch = collate([*readable.values()]) if readable else None
    return LoadedRows([*readable], batch, failures, warnings)
