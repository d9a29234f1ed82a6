"""The run's own logs: each record is written once, even if the run is interrupted."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from speechbrain.utils.distributed import if_main_process, main_process_only
from torch import Tensor

from eat.training.trackers import Tracker, open_trackers, require_packages
from eat.utils.files import atomic_path, keep_copy, open_append, sync_to_disk

logger = logging.getLogger(__name__)

METRICS, SKIPPED, EPOCHS = "metrics.jsonl", "skipped.jsonl", "train_log.txt"
APPEND_ONLY = (METRICS, SKIPPED, EPOCHS)


class MetricsLogger:
    """Append records to the log files of a run.

    An interrupted run may have written records after its last checkpoint, which the
    resumed run writes again: :meth:`resume` removes them.

    Parameters
    ----------
    folder
        The run's folder; gets ``metrics.jsonl`` and ``skipped.jsonl``.
    tensorboard, wandb
        See :func:`eat.training.trackers.open_trackers`.
    """

    def __init__(
        self, folder: str | Path, tensorboard: bool = False, wandb: str = "none"
    ) -> None:
        require_packages(tensorboard, wandb)
        self.folder = Path(folder)
        self.tracker_settings = tensorboard, wandb
        self.trackers: list[Tracker] | None = None  # until the first record

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
        written = {"kind": kind, "epoch": epoch, "step": step, **values}
        self._append(METRICS, json.dumps(written))
        self._track(written)
        shown = "  ".join(
            f"{key} {value:.4g}" for key, value in values.items() if value is not None
        )
        logger.info("%s %d  %s", kind, step, shown)

    def _track(self, record: dict) -> None:
        """Show the newest record elsewhere; the first time, all records."""
        new: Iterable[dict] = [record]
        if self.trackers is None:
            self.trackers = open_trackers(self.folder, *self.tracker_settings)
            new = self.records() if self.trackers else ()
        for tracker, item in product(self.trackers, new):
            tracker.log(item)

    def write_skipped_clips(self, step: int, reason: str, clips: Sequence[str]) -> None:
        """Record which clips were not trained on, and why."""
        if if_main_process():
            record = {"step": step, "reason": reason, "clips": list(clips)}
            self._append(SKIPPED, json.dumps(record, ensure_ascii=False))

    def records(self) -> Iterator[dict]:
        """Yield the records of ``metrics.jsonl`` that can be read."""
        for line in _lines(_content(self.folder / METRICS)):
            if record := _parse(line):
                yield record

    def sync(self) -> dict[str, tuple[int, str]]:
        """Flush the log files to disk; return size in bytes and SHA-256 of each."""
        marks = {}
        for name in APPEND_ONLY:
            content = _content(self.folder / name)
            if content:
                sync_to_disk(self.folder / name)
            marks[name] = len(content), hashlib.sha256(content).hexdigest()
        sync_to_disk(self.folder)  # their names
        return marks

    @main_process_only
    def clear(self) -> None:
        """Empty the log files of a run that ended before its first checkpoint."""
        if any(_content(self.folder / name) for name in APPEND_ONLY):
            logger.warning(
                "%s: the run ended before its first checkpoint and starts again",
                self.folder,
            )
        self.cut(dict.fromkeys(APPEND_ONLY, 0))

    @main_process_only
    def warn_of_changes(self, marks: Mapping[str, Sequence]) -> None:
        """Warn of log files of a finished run that have lost records."""
        for name in APPEND_ONLY:
            if _is_altered(_content(path := self.folder / name), marks[name]):
                logger.warning("%s: missing or altered since the run ended", path)

    @main_process_only
    def resume(
        self, marks: Mapping[str, Sequence], step: int, epoch_ended: bool, backup: bool
    ) -> None:
        """Cut log files back to what they were at a checkpoint.

        Of a file that has been altered since, a copy is kept, and the whole lines up to
        the checkpoint remain.

        Parameters
        ----------
        marks
            What :meth:`sync` returned before the checkpoint was saved.
        step, epoch_ended
            Optimizer step of the checkpoint; whether its epoch had been validated.
        backup
            Keep a copy of every file that is cut.
        """
        for name in APPEND_ONLY:
            path, size = self.folder / name, marks[name][0]
            content = _content(path)
            if _is_altered(content, marks[name]):
                self._repair(path, content, step, epoch_ended)
            elif len(content) > size:
                if backup:
                    logger.warning("%s: later records: %s", path, keep_copy(path))
                self.cut({name: size})

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Cut the named files to sizes in bytes."""
        for name, size in sizes.items():
            if _content(self.folder / name):
                with open_append(self.folder / name) as file:
                    file.truncate(size)

    def _repair(self, path: Path, content: bytes, step: int, epoch_ended: bool) -> None:
        """Keep the lines that were written before a checkpoint."""
        if not content:
            logger.warning("%s: missing or empty; records up to %d lost", path, step)
            return
        lines = [x for x in _lines(content) if _is_before(x, step, epoch_ended)]
        logger.warning(
            "%s: altered since the checkpoint of step %d; %d whole records up to there "
            "are kept (the file as it was: %s)",
            path,
            step,
            len(lines),
            keep_copy(path),
        )
        with atomic_path(path, sync=True) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in lines))

    def _append(self, name: str, line: str) -> None:
        """Append a whole line or nothing."""
        with open_append(self.folder / name) as file:
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            unfinished = file.read(1) not in (b"", b"\n")  # an editor's last line
            data = b"\n" * unfinished + line.encode(errors="backslashreplace") + b"\n"
            try:
                if file.write(data) < len(data):
                    raise OSError(28, "No space left on device", str(file.name))
            except OSError:
                file.truncate(size)
                raise


def _content(path: Path) -> bytes:
    """Return the content of a log file; empty if there is none."""
    if not path.exists() and not path.is_symlink():
        return b""
    with open_append(path) as file:
        file.seek(0)
        return file.read()


def _is_altered(content: bytes, mark: Sequence) -> bool:
    """Return whether a file no longer begins as it was when `mark` was made."""
    size, checksum = mark
    return hashlib.sha256(content[:size]).hexdigest() != checksum


def _lines(content: bytes) -> list[bytes]:
    """Return the complete lines."""
    return content.split(b"\n")[:-1]


def _parse(line: bytes) -> dict | None:
    """Return the record of a line of JSON, or of ``train_log.txt``, if it is whole."""
    if found := re.match(rb"epoch: \d+, step: (\d+) ", line):
        return {"kind": "epoch", "step": int(found[1])}
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole else None


def _is_before(line: bytes, step: int, epoch_ended: bool) -> bool:
    """Return whether a line was written before the checkpoint of a step."""
    record = _parse(line)
    if record is None or record.get("kind") == "test":
        return False
    # The end of an epoch is logged between two checkpoints of the same step.
    last = step - (record.get("kind") == "epoch" and not epoch_ended)
    return record["step"] <= last


def _finite(value: float | Tensor | None) -> float | None:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
