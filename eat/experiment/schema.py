"""Whether values are what the table of settings accepts, one by one and together."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from eat.errors import ExperimentError
from eat.experiment.settings import KNOWN_SETTINGS, Setting

PATCH = 16  # frames, and mel bands, of a patch
LARGEST = 1e300  # products of settings must be finite, too
BANDS = 8  # patches along the 128 mel bands
WIDTHS = {"micro": 64, "tiny": 128, "small": 384, "base": 768, "large": 1024}
BLOCKS = re.compile(r"[1-9]\d{0,3}x[1-9]\d{0,3}(,[1-9]\d{0,3}x[1-9]\d{0,3})*")


def check_values(
    values: Mapping[str, Any], defaults: Mapping[str, object], where: str
) -> None:
    """Raise `ExperimentError` if values are missing, of a wrong type or out of range.

    Values of a recipe's own settings, which the table does not have, must be finite; a
    number stays a number, and a truth value one.

    Parameters
    ----------
    values
        Plain values, references resolved; an object is a mapping.
    defaults
        The values in the YAML file, before the command line.
    where
        The file.
    """
    _check_names(values, where)
    for key, value in values.items():
        setting = KNOWN_SETTINGS.get(key)
        if rule := _broken_rule(setting, value, defaults.get(key)):
            raise refusal(where, key, value, rule)
        for name, part in value.items() if isinstance(value, dict) else ():
            if setting is None or name == "!":
                continue
            if rule := _broken_rule(KNOWN_SETTINGS.get(f"{key}.{name}"), part):
                raise refusal(where, f"{key}: {name}", part, rule)
    if contradiction := _contradiction(values):
        raise ExperimentError(f"{where}: {contradiction}")


def refusal(where: str, key: str, value: object, rule: str) -> ExperimentError:
    """Return the error of a value that is not what it must be."""
    text = repr(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return ExperimentError(f"{where}: {key} is {shown} (must be {rule})")


def broken_rule(setting: Setting, value: Any) -> str | None:
    """Return what the value of a setting must be and is not; None where it is right."""
    if value is None and setting.nullable:
        return None
    right = {
        "boolean": lambda: isinstance(value, bool),
        "flag": lambda: isinstance(value, bool),
        "integer": lambda: type(value) is int and _within(value, setting),
        "number": lambda: is_number(value) and _within(value, setting),
        "numbers": lambda: (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(is_number(item) and _within(item, setting) for item in value)
        ),
        "name": lambda: type(value) is int or (isinstance(value, str) and value != ""),
        "names": lambda: isinstance(value, list) and bool(value),
        "object": lambda: isinstance(value, dict),
        "text": lambda: (
            isinstance(value, str)
            and value != ""
            and "\0" not in value
            and (not setting.choices or value in setting.choices)
        ),
    }[setting.kind]()
    return None if right else setting.accepts


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -LARGEST < value < LARGEST


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the name that was meant; empty if none is near."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _within(value: float, setting: Setting) -> bool:
    low, high = setting.limits
    above = value > low if setting.interval[0] == "(" else value >= low
    return above and (value < high if setting.interval[-1] == ")" else value <= high)


def _check_names(values: Mapping[str, Any], where: str) -> None:
    """Raise if a setting has no name, is misspelled, or its task needs one more."""
    for key in values:
        if not isinstance(key, str):
            raise ExperimentError(f"{where}: the setting {key!r} is not a name")
    if values.get("task") not in KNOWN_SETTINGS["task"].choices:
        return  # not one of the recipes'
    missing = [
        key
        for key, setting in KNOWN_SETTINGS.items()
        if key not in values
        and "." not in key
        and setting.task in ("", values["task"])
        and not setting.optional
    ]
    for key in values.keys() - KNOWN_SETTINGS.keys():
        if hint := nearest(key, missing):
            raise ExperimentError(f"{where}: unknown setting {key} ({hint})")
    if missing:
        raise ExperimentError(f"{where}: no setting {', '.join(missing)} (add it)")


def _broken_rule(
    setting: Setting | None, value: Any, default: object = None
) -> str | None:
    """Return the rule that a value breaks, also for settings not in the table."""
    if setting is not None:
        return broken_rule(setting, value)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(default, int | float) and not is_number(value):
        return f"a number, such as {default}"
    return None if _is_finite(value) else "a finite number"


def _is_finite(value: object) -> bool:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return all(map(_is_finite, parts))
    return not isinstance(value, float) or math.isfinite(value)


def _contradiction(values: Mapping[str, Any]) -> str | None:
    """Return in words how values contradict each other; None if they do not."""
    for low, high in (
        ("min_lr", "lr"),
        ("warmup_steps", "total_steps"),
        ("ema_start", "ema_end"),
    ):
        if {low, high} <= values.keys() and values[low] > values[high]:
            return (
                f"{low} is {values[low]}, more than {high}, {values[high]} "
                f"(lower {low})"
            )
    frames = values.get("num_frames")
    if frames is None:
        return None
    if frames % PATCH:
        return f"num_frames is {frames} (must be a multiple of {PATCH})"
    longest = values.get("encoder", {}).get("max_frames", frames)
    if frames > longest:
        return f"num_frames is {frames}, more than the encoder's max_frames, {longest}"
    return (
        _masking_contradiction(values, frames // PATCH)
        or _width(values)
        or _copies(values)
    )


def _copies(values: Mapping[str, Any]) -> str | None:
    """Compare settings of objects with those that they stand for, by their meaning."""
    for name, setting in KNOWN_SETTINGS.items():
        key, _, part = name.partition(".")
        parts, original = values.get(key), setting.meaning
        if original in values and isinstance(parts, dict) and part in parts:
            if parts[part] != values[original]:
                return f"{key}: {part} differs from {original} (set {original} instead)"
    return None


def _masking_contradiction(values: Mapping[str, Any], times: int) -> str | None:
    """Compare the masks with the grid of patches, `times` x `BANDS`."""
    masks, patches = values.get("mask_sampler", {}), times * BANDS
    ratio, blocks = masks.get("mask_ratio"), masks.get("blocks")
    if ratio is not None and int(patches * (1 - ratio)) == 0:
        return (
            f"mask_sampler: mask_ratio is {ratio}: all of {patches} patches are masked "
            f"(at most {1 - 1 / patches:.3g})"
        )
    if blocks is None:
        return None
    example = "as 5x5, or as 6x4,5x5,8x3"
    if not BLOCKS.fullmatch(blocks):
        return f"blocks is {blocks!r} (must be {example})"
    for block in blocks.split(","):
        height, width = map(int, block.split("x"))
        if height > times or width > BANDS:
            return (
                f"blocks: {block} is larger than the {times}x{BANDS} patches of a clip"
            )
    return None


def _width(values: Mapping[str, Any]) -> str | None:
    """Compare what the decoder and teacher are told about each other's sizes."""
    decoder, teacher = values.get("decoder", {}), values.get("teacher", {})
    width, preset = decoder.get("dim"), values.get("encoder", {}).get("preset")
    if width is not None and "input_dim" not in decoder and preset in WIDTHS:
        if width != WIDTHS[preset]:
            return (
                f"decoder: dim is {width}, but the encoder's width is {WIDTHS[preset]} "
                f"(preset {preset})"
            )
    if decoder.get("dim", 0) % decoder.get("groups", 1):
        return (
            f"decoder: groups is {decoder['groups']}, not a divisor of dim, "
            f"{decoder['dim']}"
        )
    if decoder.get("kernel", 1) % 2 == 0:
        return f"decoder: kernel is {decoder['kernel']} (must be odd)"
    patches = values["num_frames"] // PATCH * BANDS
    if teacher.get("num_patches", patches) != patches:
        return (
            f"teacher: num_patches is {teacher['num_patches']}, but clips of "
            f"{values['num_frames']} frames have {patches}"
        )
    return None
