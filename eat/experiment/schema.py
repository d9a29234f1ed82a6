"""Which values the settings of a run may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eat.errors import ExperimentError

POSITIVE_INTEGERS = {
    "batch_size",
    "steps_per_epoch",
    "number_of_epochs",
    "grad_accumulation_factor",
    "keep_checkpoints",
    "log_interval",
    "num_classes",
    "num_frames",
}
MULTIPLES = {"num_frames": 16}  # a spectrogram is cut into patches of 16 frames


def check_values(
    values: Mapping[str, object], defaults: Mapping[str, object], where: str
) -> None:
    """Raise `ExperimentError` if a value has the wrong type or is out of range.

    `defaults` are the plain values of the YAML file `where`: a number stays a number, a
    truth value one.
    """
    for key, value in values.items():
        if rule := _broken_rule(key, value, defaults.get(key)):
            raise ExperimentError(f"{where}: {key} is {value!r} (must be {rule})")


def _broken_rule(key: str, value: Any, default: object) -> str | None:
    """Return what the value must be and is not; None where it is right."""
    if isinstance(default, bool):
        return None if value in (True, False) else "True or False"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, int | float) and not is_number:
        return f"a number, such as {default}"
    if key in POSITIVE_INTEGERS and not (is_number and value >= 1 and value % 1 == 0):
        return "a positive integer"
    if key in MULTIPLES and value % MULTIPLES[key]:
        return f"a multiple of {MULTIPLES[key]}"
    return None
