"""How far a run has come, kept outside its checkpoints, which may be lost."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from speechbrain.utils.distributed import main_process_only

from eat.errors import ExperimentError
from eat.experiment.folder import PROGRESS
from eat.training.metrics_logger import MetricsLogger
from eat.utils.files import require_regular, write_json

logger = logging.getLogger(__name__)


@main_process_only
def record_checkpoint(folder: Path, step: int) -> None:
    """Record that a checkpoint of an optimizer step has been saved."""
    write_json(folder / PROGRESS, {"saved_step": step}, sync=True)


def recorded_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint that a run has saved, if it has any."""
    path = folder / PROGRESS
    require_regular(path)
    try:
        step = json.loads(path.read_text(encoding="utf-8"))["saved_step"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return 0  # an empty or altered file: there was one
    return step if isinstance(step, int) else 0


def require_untrained(folder: Path) -> None:
    """Refuse to train from scratch where a run has lost its checkpoints.

    A run that was interrupted before its first checkpoint has nothing to lose.
    """
    results = folder / "results.json"
    if results.exists():
        raise ExperimentError(
            f"{results}: results of a finished run, whose checkpoints are gone "
            "(give another --output_folder to train from scratch)"
        )
    records = list(MetricsLogger(folder).records())
    steps = [record["step"] for record in records]
    validated = any(record.get("kind") == "epoch" for record in records)
    models = [folder / name for name in ("model", "models") if (folder / name).exists()]
    saved, checkpoints = recorded_step(folder), folder / "save"
    if saved is None and not validated and not models:
        return
    if saved is None and not steps:
        raise ExperimentError(
            f"{models[0]}: a model is there, but no checkpoint in {checkpoints} "
            "(bring the checkpoints back, or give another --output_folder)"
        )
    raise ExperimentError(
        f"{checkpoints}: no checkpoint is there, but the logs say that the run has "
        f"reached step {max([*steps, saved or 0])} (mount or bring back the folder, or "
        "give another --output_folder to train from scratch)"
    )


def warn_of_older_checkpoint(folder: Path, step: int) -> bool:
    """Return whether a run has saved a checkpoint after that of `step`, and warn."""
    newest = recorded_step(folder) or 0
    if newest > step:
        logger.warning(
            "%s: resuming after step %d, although a checkpoint of step %d had been "
            "saved: the steps between are trained again",
            folder,
            step,
            newest,
        )
    return newest > step
