"""Steps and clips that cannot be trained on: logged, counted, and limited."""

from __future__ import annotations

import logging
import math

from speechbrain.utils.checkpoints import Checkpointer

from eat.data.dataset import Batch
from eat.errors import ExperimentError
from eat.training.metrics_logger import MetricsLogger
from eat.training.train_state import TrainState
from eat.utils.distributed import all_gather_objects

logger = logging.getLogger(__name__)

MIN_UNREADABLE = 10  # so many unreadable clips never stop a run


class SkipMonitor:
    """Log skipped steps and unreadable clips; raise if there are too many.

    Parameters
    ----------
    state
        Counts them.
    metrics_logger
        Writes them to ``skipped.jsonl``.
    """

    def __init__(self, state: TrainState, metrics_logger: MetricsLogger) -> None:
        self.state = state
        self.metrics_logger = metrics_logger
        self.clips: list[str] = []  # ids, of the current step on this rank
        self.unreadable: list[tuple[str, str]] = []  # ids and reasons

    def add(self, batch: Batch) -> None:
        """Keep the ids of a batch until the step ends."""
        self.clips += batch.ids
        self.unreadable += batch.failures

    def end_step(
        self,
        step: int,
        grad_norm: float,
        patience: int,
        checkpointer: Checkpointer | None,
    ) -> None:
        """Count an optimizer step, which was skipped if its gradient was not finite.

        With fp16 a few skipped steps in a row are normal: the loss scale adapts.

        Raises
        ------
        ExperimentError
            If more than `patience` steps in a row were skipped.
        """
        finite, state = math.isfinite(grad_norm), self.state
        state.count_step(finite)
        clips, self.clips = self.clips, []
        if finite:
            return
        clips = [clip for part in all_gather_objects(clips) for clip in part]
        reason = f"gradient norm {grad_norm}"
        self.metrics_logger.write_skipped_clips(step, reason, clips)
        logger.warning(
            "Step %d: %s, step skipped (%d so far; its clips: skipped.jsonl)",
            step,
            reason,
            state.skipped_steps,
        )
        if state.skipped_in_a_row <= patience:
            return
        newest = checkpointer and checkpointer.find_checkpoint()
        good = f"last good checkpoint: {newest.path}" if newest else "no checkpoint yet"
        raise ExperimentError(
            f"step {step}: the gradient was not finite for {state.skipped_in_a_row} "
            f"steps in a row (skipped.jsonl lists the clips; {good}; raise "
            "--nonfinite_patience to tolerate more; a lower --lr or --precision fp32 "
            "needs another --output_folder)"
        )

    def log_unreadable(self, step: int, clips_seen: int, max_share: float) -> None:
        """Log the step's clips that were substituted, and limit their share.

        Every rank must call this if any has `unreadable` clips.

        Raises
        ------
        ExperimentError
            If they are more than the share `max_share` of all clips seen.
        """
        for part in all_gather_objects(self.unreadable):
            for clip, reason in part:
                self.metrics_logger.write_skipped_clips(step, reason, [clip])
                self.state.unreadable_clips += 1
        self.unreadable = []
        count = self.state.unreadable_clips
        logger.warning(
            "%d of %d clips unreadable (see skipped.jsonl)", count, clips_seen
        )
        if count > max(max_share * clips_seen, MIN_UNREADABLE):
            raise ExperimentError(
                f"step {step}: {count} of {clips_seen} clips unreadable, more than the "
                f"share {max_share} (skipped.jsonl lists them; fix the corpus or raise "
                "--max_unreadable_share)"
            )
