"""The run's own logs: each record is written once, even if the run is interrupted."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechbrain.utils.distributed import if_main_process, main_process_only
from torch import Tensor

logger = logging.getLogger(__name__)

METRICS, SKIPPED = "metrics.jsonl", "skipped.jsonl"
APPEND_ONLY = (METRICS, SKIPPED, "train_log.txt")


class MetricsLogger:
    """Append records to the log files of a run.

    An interrupted run may have written records after its last checkpoint, which the
    resumed run writes again: :meth:`truncate` removes them.

    Parameters
    ----------
    folder
        The run's folder; gets ``metrics.jsonl`` and ``skipped.jsonl``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def write(
        self,
        kind: str,
        epoch: int,
        step: int,
        record: Mapping[str, float | Tensor | None],
    ) -> None:
        """Append a record and show it; numbers that are not finite become null."""
        if not if_main_process():
            return
        values = {key: _finite(value) for key, value in record.items()}
        line = json.dumps({"kind": kind, "epoch": epoch, "step": step, **values})
        self._append(METRICS, line)
        shown = "  ".join(
            f"{key} {value:.4g}" for key, value in values.items() if value is not None
        )
        logger.info("%s %d  %s", kind, step, shown)

    def write_skipped_clips(self, step: int, reason: str, clips: Sequence[str]) -> None:
        """Record which clips were not trained on, and why."""
        if if_main_process():
            record = {"step": step, "reason": reason, "clips": list(clips)}
            self._append(SKIPPED, json.dumps(record, ensure_ascii=False))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each log file, by name."""
        files = {name: self.folder / name for name in APPEND_ONLY}
        return {k: f.stat().st_size if f.exists() else 0 for k, f in files.items()}

    @main_process_only
    def truncate(self, sizes: Mapping[str, int]) -> None:
        """Cut log files back to what they were; those not named become empty."""
        for name in APPEND_ONLY:
            file, size = self.folder / name, sizes.get(name, 0)
            if file.exists() and file.stat().st_size > size:
                with open(file, "rb+") as stream:
                    stream.truncate(size)

    def _append(self, name: str, line: str) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _finite(value: float | Tensor | None) -> float | None:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
