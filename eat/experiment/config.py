"""From a YAML file and a command line to settings, resolved once."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.experiment.schema import check_values
from eat.experiment.yaml_tree import (
    dump,
    parse,
    placeholders,
    plain_values,
    read_tree,
    update,
)

SETTINGS = "hyperparams.yaml"


@dataclass(frozen=True)
class Config:
    """The settings of a run and the `path` of the YAML file that they come from.

    `text` is HyperPyYAML: overrides applied, references resolved, nothing built.
    `values` are the same as plain values, an object as a mapping with its class under
    ``!``.
    """

    path: str
    text: str
    values: dict[str, Any]

    def instantiate(self) -> dict[str, Any]:
        """Return the settings with their objects built.

        Raises `ExperimentError` if an object does not accept its settings.
        """
        try:
            return load_hyperpyyaml(self.text)
        except (TypeError, ValueError) as error:
            raise ExperimentError(
                f"{self.path}: an object cannot be built: {_first_line(error)}"
            ) from error


def load_config(
    path: str | Path, overrides: str = "", run_opts: RunOptions | None = None
) -> Config:
    """Read a YAML file, apply the command line, resolve references, check the values.

    Raises `ExperimentError` if a setting is unknown, missing, given twice or out of
    range.

    Parameters
    ----------
    path
        HyperPyYAML file, which may include another (see :func:`read_tree`).
    overrides
        Overrides of its keys, as YAML text.
    run_opts
        SpeechBrain's run options. Those given on the command line override keys of the
        same name, as in SpeechBrain, and so become part of the settings.
    """
    path = str(path)
    tree = read_tree(path)
    defaults = dict(tree)
    update(tree, parse(overrides, f"{path}: options"), path)
    if run_opts is not None:
        _apply_run_options(tree, run_opts)
    if missing := placeholders(tree):
        options = " ".join(f"--{name} ..." for name in missing)
        raise ExperimentError(f"{path}: {', '.join(missing)} not given (add {options})")
    stream = StringIO(dump(tree))
    stream.name = path  # where HyperPyYAML looks for what a value includes
    try:
        text = resolve_references(stream).read()
    except ValueError as error:
        raise ExperimentError(f"{path}: {_first_line(error)}") from error
    values = plain_values(text)
    check_values(values, defaults, path)
    return Config(path, text, values)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings that a run recorded, as :attr:`Config.values`; maybe none."""
    path = Path(folder) / SETTINGS
    return plain_values(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_scalar_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings that a run recorded, without its lists and objects."""
    settings = read_settings(folder)
    return {k: v for k, v in settings.items() if not isinstance(v, dict | list)}


def _apply_run_options(tree: dict[str, Any], run_opts: RunOptions) -> None:
    for key in run_opts.overridden_args & tree.keys():
        tree[key] = run_opts[key]
    # SpeechBrain refuses to have both.
    if "ckpt_interval_steps" in run_opts.overridden_args and (
        "ckpt_interval_minutes" in tree
    ):
        tree["ckpt_interval_minutes"] = 0


def _first_line(error: Exception) -> str:
    return ": ".join(map(str, error.args)).strip().splitlines()[0]
