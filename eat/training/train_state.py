"""What a run needs to resume exactly, beside its weights, optimizer and epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process

from eat.errors import ExperimentError
from eat.training.meter import IntervalMeter
from eat.training.metrics_logger import MetricsLogger
from eat.utils.distributed import all_gather_objects
from eat.utils.files import write_json
from eat.utils.settings_diff import describe_changes


@register_checkpoint_hooks
@dataclass
class TrainState:
    """The state of a run, as a SpeechBrain recoverable.

    All counts are over all ranks: a run may be resumed with another number of
    processes.
    """

    optimizer_step: int = 0
    batches: int = 0  # of the current epoch
    clips_per_step: int = 0
    average_loss: float = 0.0  # of the epoch, as SpeechBrain's progress bar shows it
    # Settings and clips that the run's numbers depend on; None in a new run.
    fingerprint: dict[str, object] | None = None
    skipped_steps: int = 0  # since their gradients were not finite
    skipped_in_a_row: int = 0
    unreadable_clips: int = 0  # which were substituted
    # Sums of the metrics since the last log line, by rank, and batches per rank.
    interval_sums: list[dict[str, float]] = field(default_factory=list)
    interval_batches: float = 0
    seconds: float = 0.0  # in training
    device_seconds: float = 0.0  # the same, summed over ranks
    # Size in bytes and SHA-256 of each log file, by name.
    logs: dict[str, Sequence] = field(default_factory=dict)

    def count_step(self, finite: bool) -> None:
        """Count an optimizer step that was taken, or skipped if not `finite`."""
        self.skipped_steps += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1

    def capture_logs(self, meter: IntervalMeter, logs: MetricsLogger) -> None:
        """Take over the state of the logs; all ranks must call this."""
        sums = {key: float(value) for key, value in meter.sums.items()}
        self.interval_sums = all_gather_objects(sums)
        self.interval_batches = meter.batches
        self.seconds, self.device_seconds = meter.seconds, meter.device_seconds
        self.logs = dict(logs.sync()) if if_main_process() else {}

    def restore_meter(self, meter: IntervalMeter) -> None:
        """Let a meter continue from this state."""
        meter.restore(
            self.interval_sums,
            self.interval_batches,
            self.seconds,
            self.device_seconds,
        )

    def require_same_run(
        self, fingerprint: dict[str, object], clips_per_step: int, source: Path
    ) -> None:
        """Refuse to resume a run whose settings or clips have changed.

        Raises
        ------
        ExperimentError
            If those of the current run are not those of the state, which was loaded
            from the folder `source`.
        """
        if changes := describe_changes(self.fingerprint or {}, fingerprint):
            raise ExperimentError(
                f"{source}: checkpoints of a run with other settings or clips "
                f"({changes}; restore them, or give another --output_folder)"
            )
        if self.clips_per_step != clips_per_step:
            raise ExperimentError(
                f"{source}: checkpoints of a run with {self.clips_per_step} clips per "
                f"step, now {clips_per_step} (processes x batch_size x "
                "grad_accumulation_factor; change the last, or give another "
                "--output_folder)"
            )

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Write the state as JSON; SpeechBrain calls it on the main process only."""
        write_json(path, asdict(self))

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Replace the state by that of a checkpoint."""
        for name, value in asdict(self.read(path)).items():
            setattr(self, name, value)

    @classmethod
    def read(cls, path: str | Path) -> TrainState:
        """Return the state in a file that :meth:`save` has written."""
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        if state.keys() != {item.name for item in fields(cls)}:
            raise ExperimentError(
                f"{path}: written by another version of this toolkit (give another "
                "--output_folder)"
            )
        return cls(**state)
