"""From a YAML file and a command line to settings, refused where they make no sense."""

from __future__ import annotations

import difflib
from io import StringIO
from pathlib import Path

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.error import MarkedYAMLError
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.model.patching import PATCH

SETTINGS = "hyperparams.yaml"

WHOLE_AND_POSITIVE = {
    "batch_size",
    "steps_per_epoch",
    "number_of_epochs",
    "grad_accumulation_factor",
    "keep_checkpoints",
    "log_interval",
    "num_classes",
    "num_frames",
}


class PlainLoader(yaml.SafeLoader):
    """Reads HyperPyYAML as plain data: a tag becomes a key beside its arguments."""


def _plain_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return {"!": suffix, **loader.construct_mapping(node, deep=True)}
    if isinstance(node, yaml.SequenceNode):
        return {"!": suffix, "": loader.construct_sequence(node, deep=True)}
    if suffix == "tuple":  # HyperPyYAML leaves the tag out once it has loaded a file
        return node.value
    return f"!{suffix}" + (f" {node.value}" if node.value else "")


PlainLoader.add_multi_constructor("!", _plain_tag)


def plain_settings(folder: str | Path) -> dict[str, object]:
    """A run's settings, overrides included; empty where it has none.

    Nested objects are left out.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return {}
    settings = yaml.load(path.read_text(encoding="utf-8"), Loader=PlainLoader)
    return {k: v for k, v in settings.items() if not isinstance(v, dict | list)}


def with_run_options(text: str, overrides: str, run_opts: RunOptions) -> str:
    """The overrides and the run options that the YAML file sets as well.

    SpeechBrain lets them win over the file without a trace in what it records.
    """
    given = run_opts.overridden_args & set(_setting_names(text))
    lines = [overrides, *(f"{key}: {run_opts[key]}" for key in sorted(given))]
    if "ckpt_interval_steps" in run_opts.overridden_args:
        lines.append("ckpt_interval_minutes: 0")  # SpeechBrain refuses to have both
    return "\n".join(line for line in lines if line)


def _setting_names(text: str) -> list[str]:
    return [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]


def resolve(path: str, text: str, overrides: str) -> dict:
    """The settings as plain values, references followed, nothing instantiated.

    Raises
    ------
    ExperimentError
        If a setting is unknown, missing, or out of its range.
    """
    try:
        resolved = resolve_references(
            StringIO(text), overrides, overrides_must_match=True
        )
    except MarkedYAMLError as error:
        reason = str(error.problem).splitlines()[0]
        raise ExperimentError(
            f"{path}: options cannot be read, is one given twice? ({reason})"
        ) from error
    except KeyError as error:
        raise ExperimentError(_unknown_setting(path, text, overrides)) from error
    except ValueError as error:
        if "PLACEHOLDER" not in str(error):
            raise ExperimentError(f"{path}: {error}") from error
        name = str(error).split("'")[1]
        raise ExperimentError(f"{path}: {name} not given (add --{name} ...)") from error
    settings = yaml.load(resolved.read(), Loader=PlainLoader)
    for key, default in yaml.load(text, Loader=PlainLoader).items():
        if isinstance(default, int | float) and not _is_number(settings[key]):
            raise ExperimentError(
                f"{path}: {key} is {settings[key]!r}: must be a number, as {default}"
            )
    for key in WHOLE_AND_POSITIVE & settings.keys():
        if float(settings[key]) < 1 or float(settings[key]) % 1:
            raise ExperimentError(
                f"{path}: {key} is {settings[key]}: must be a whole number from 1 on"
            )
    if float(settings.get("num_frames", PATCH)) % PATCH:
        raise ExperimentError(
            f"{path}: num_frames is {settings['num_frames']}: must be a multiple of "
            f"{PATCH}, the width of a patch"
        )
    return settings


def _is_number(value: object) -> bool:
    try:
        float(value)  # PyYAML takes 1e-3 for a string
    except (TypeError, ValueError):
        return False
    return True


def instantiate(path: str, text: str, overrides: str) -> dict:
    """The settings with their objects built.

    Raises
    ------
    ExperimentError
        If an object does not take its settings.
    """
    try:
        return load_hyperpyyaml(text, overrides)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExperimentError(f"{path}: a setting does not fit ({reason})") from error


def _unknown_setting(path: str, text: str, overrides: str) -> str:
    known = _setting_names(text)
    names = yaml.safe_load(overrides).keys()
    name = next(name for name in names if name not in known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean --{close[0]}?" if close else "the file lists them all"
    return f"{path}: no setting --{name} ({hint})"
