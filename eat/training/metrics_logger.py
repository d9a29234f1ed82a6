"""The run's own records: each figure once, interrupted or not."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process, main_process_only
from torch import Tensor

logger = logging.getLogger(__name__)

METRICS, SKIPPED = "metrics.jsonl", "skipped.jsonl"
GROWING = (METRICS, SKIPPED, "train_log.txt")  # text that only grows with the run


@register_checkpoint_hooks
class MetricsLogger:
    """Appends records, and goes back with the run when that goes back.

    Part of the checkpoint: what an interrupted run had written after its last
    checkpoint is taken back, since the resumed one writes it again.

    Parameters
    ----------
    folder
        The run's folder; gets ``metrics.jsonl`` and ``skipped.jsonl``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def write(
        self, kind: str, epoch: int, step: int, record: dict[str, float | Tensor | None]
    ) -> None:
        """Append a record and show it on the console; not-a-number becomes null."""
        if not if_main_process():
            return
        record = {key: _plain(value) for key, value in record.items()}
        line = json.dumps({"kind": kind, "epoch": epoch, "step": step, **record})
        self._append(METRICS, line)
        shown = "  ".join(
            f"{key} {value:.4g}" for key, value in record.items() if value is not None
        )
        logger.info("%s %d  %s", kind, step, shown)

    def write_skipped_clips(self, step: int, reason: str, clips: Sequence[str]) -> None:
        """Write down clips that did not train the network, and why."""
        if if_main_process():
            record = {"step": step, "reason": reason, "clips": list(clips)}
            self._append(SKIPPED, json.dumps(record, ensure_ascii=False))

    def _append(self, name: str, line: str) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def begin(self) -> None:
        """Take back all that was written: the run begins anew."""
        self._cut(dict.fromkeys(GROWING, 0))

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        files = {name: self.folder / name for name in GROWING}
        sizes = {k: f.stat().st_size if f.exists() else 0 for k, f in files.items()}
        Path(path).write_text(json.dumps(sizes), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        # A finished run has written its last lines after its last checkpoint.
        if not (self.folder / "results.json").exists():
            self._cut(json.loads(Path(path).read_text(encoding="utf-8")))

    @main_process_only
    def _cut(self, sizes: dict[str, int]) -> None:
        for name, size in sizes.items():
            file = self.folder / name
            if file.exists() and file.stat().st_size > size:
                with open(file, "rb+") as stream:
                    stream.truncate(size)


def _plain(value: float | Tensor | None) -> float | None:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
