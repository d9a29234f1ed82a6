"""Metrics on TensorBoard and Weights & Biases, if the YAML file says so.

SpeechBrain's loggers for these count calls or epochs, from 1 again in a resumed run.
Here the step is the optimizer step, and what they show is always ``metrics.jsonl``.
"""

from __future__ import annotations

import importlib.util
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eat.errors import ExperimentError
from eat.experiment.config import read_settings

PLACE = ("kind", "epoch", "step")


class Tracker(ABC):
    """Shows the records of a run; a new one is given all of them again."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Show a record of ``metrics.jsonl``: each number as ``kind/name``."""
        values = {
            f"{record['kind']}/{name}": float(value)
            for name, value in record.items()
            if name not in PLACE and isinstance(value, int | float)
        }
        self.show(record["step"], values)

    @abstractmethod
    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show metrics of an optimizer step."""


class TensorBoard(Tracker):
    """Writes ``tensorboard/`` in a run's folder, replacing its earlier events."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        events = folder / "tensorboard"
        for earlier in events.glob("events.out.tfevents.*"):
            earlier.unlink()
        # A server that has read the earlier events forgets them.
        self.writer = SummaryWriter(str(events), purge_step=0)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show metrics of an optimizer step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


class WeightsAndBiases(Tracker):
    """Continues the run that ``wandb_id.txt`` in a run's folder names."""

    def __init__(self, folder: Path, project: str) -> None:
        path = folder / "wandb_id.txt"
        if not path.exists():
            path.write_text(uuid.uuid4().hex)
        # By name, since its types are not known where it is not installed.
        self.run = importlib.import_module("wandb").init(
            project=project,
            name=folder.name,
            id=path.read_text(),
            resume="allow",
            dir=str(folder),
            config=read_settings(folder),
        )
        self.first_step = self.run.step  # earlier ones cannot be changed

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show metrics of an optimizer step."""
        if step >= self.first_step:
            self.run.log(dict(values), step=step)


def require_packages(tensorboard: bool, wandb: str) -> None:
    """Raise `ExperimentError` if what the settings need is not installed."""
    used = {"tensorboard": tensorboard, "wandb": wandb != "none"}
    for package, value in (("tensorboard", tensorboard), ("wandb", wandb)):
        if used[package] and importlib.util.find_spec(package) is None:
            raise ExperimentError(
                f"{package} {value}: the package is missing (pip install {package})"
            )


def open_trackers(folder: Path, tensorboard: bool, wandb: str) -> list[Tracker]:
    """Return what shows a run's metrics.

    Parameters
    ----------
    folder
        The run's folder.
    tensorboard
        Whether to write files for TensorBoard.
    wandb
        Project on Weights & Biases, or ``none``.
    """
    trackers: list[Tracker] = [TensorBoard(folder)] if tensorboard else []
    if wandb != "none":
        trackers.append(WeightsAndBiases(folder, wandb))
    return trackers
