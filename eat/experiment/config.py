"""From a YAML file and a command line to settings, resolved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import resolve_references
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.experiment.command_line import read_scalar
from eat.experiment.literals import Literals
from eat.experiment.schema import broken_rule, check_values, refusal
from eat.experiment.settings import KNOWN_SETTINGS, Setting
from eat.experiment.yaml_tree import (
    PLACEHOLDER,
    dump,
    has_tags,
    parse,
    parse_any,
    placeholders,
    plain_values,
    read_text,
    read_tree,
    tag_of,
    tags,
    update,
)

SETTINGS = "hyperparams.yaml"

# Errors of HyperPyYAML where a reference, its arithmetic or a function has none.
UNRESOLVED = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


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
        literals, tree = Literals(), parse(self.text, self.path)
        literals.hide(tree)
        try:
            return literals.load(dump(tree))
        except (TypeError, ValueError, ImportError, AttributeError) as error:
            raise ExperimentError(
                f"{self.path}: an object cannot be built: {_reason(error)}"
            ) from error


def load_config(
    path: str | Path,
    overrides: Mapping[str, str] | None = None,
    run_opts: RunOptions | None = None,
) -> Config:
    """Read a YAML file, apply the command line, resolve references, check the values.

    Raises `ExperimentError` if a setting is unknown, missing, of a wrong type, out of
    range, or contradicts another.

    Parameters
    ----------
    path
        HyperPyYAML file, which may include another (see :func:`read_tree`).
    overrides
        Texts for some of its keys. They are read according to the type of the setting;
        those of folders, names and the like are kept as they are.
    run_opts
        SpeechBrain's run options. Those given on the command line override keys of the
        same name, as in SpeechBrain, and so become part of the settings.
    """
    path = str(path)
    tree = read_tree(path)
    defaults = dict(tree)
    changes = {
        key: read_override(key, text, defaults.get(key), path)
        for key, text in (overrides or {}).items()
    }
    update(tree, changes, path, options=True)
    if run_opts is not None:
        _apply_run_options(tree, run_opts)
    if missing := placeholders(tree):
        options = " ".join(f"--{name} ..." for name in missing)
        raise ExperimentError(f"{path}: {', '.join(missing)} not given (add {options})")
    text = _resolve(tree, path)
    values = plain_values(text, path)
    check_values(values, defaults, path)
    return Config(path, text, values)


def read_override(key: str, text: str, default: object, where: str) -> Any:
    """Return the value of an option of the command line.

    It is read according to the type of the setting or, if that is a recipe's own, of
    its `default`. Lists and mappings are YAML, without tags and aliases.

    Raises `ExperimentError` if the setting does not accept it.
    """
    setting = KNOWN_SETTINGS.get(key) or _setting_like(default)
    if setting.kind in ("object", "numbers"):
        value = parse_any(text, f"{where}: --{key}")
        if has_tags(value):
            raise ExperimentError(f"{where}: --{key}: YAML tags are for files only")
    elif setting.kind == "text":
        value = DoubleQuotedScalarString(text)
    else:
        value = read_scalar(text, setting)
        if isinstance(value, str):  # the name of a fold
            value = DoubleQuotedScalarString(value)
    if key in KNOWN_SETTINGS and (rule := broken_rule(setting, value)):
        raise refusal(where, key, str(text), rule)
    return value


def _setting_like(default: object) -> Setting:
    """Return what a recipe's own setting accepts, from its value in the YAML file."""
    if isinstance(default, bool):
        return Setting("boolean", "")
    if isinstance(default, int | float):
        return Setting("number", "")
    if isinstance(default, str) or tag_of(default) == PLACEHOLDER:
        return Setting("text", "")
    return Setting("object", "")


def _resolve(tree: CommentedMap, path: str) -> str:
    """Return a tree as text, with its references and included values resolved."""
    literals = Literals()
    literals.hide(tree)
    stream = StringIO(dump(tree))
    stream.name = path  # where HyperPyYAML looks for what a value includes
    try:
        resolved = parse(resolve_references(stream).read(), path)
    except OSError as error:
        raise ExperimentError(
            f"{path}: includes {error.filename}: {error.strerror}"
        ) from error
    except UNRESOLVED as error:
        raise ExperimentError(f"{path}: {_reason(error)} (check !ref)") from error
    if "!ref" in tags(resolved):
        raise ExperimentError(f"{path}: a setting refers to itself (check !ref)")
    literals.reveal(resolved)
    return dump(resolved)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings that a run recorded, as :attr:`Config.values`; maybe none.

    Raises `ExperimentError` if the file is damaged.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return {}
    parse(text := read_text(path), str(path))
    return plain_values(text, str(path))


def read_scalar_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings that a run recorded, without its lists and objects."""
    settings = read_settings(folder)
    return {k: v for k, v in settings.items() if not isinstance(v, dict | list)}


def _apply_run_options(tree: dict[str, Any], run_opts: RunOptions) -> None:
    for key in run_opts.overridden_args & tree.keys():
        tree[key] = run_opts[key]
    for name in run_opts.compile_module_keys or ():
        if name not in (modules := tree.get("modules", {})):
            raise ExperimentError(
                f"--compile_module_keys {name}: no such module (choose from "
                f"{', '.join(modules)})"
            )
    # SpeechBrain refuses to have both.
    if "ckpt_interval_steps" in run_opts.overridden_args and (
        "ckpt_interval_minutes" in tree
    ):
        tree["ckpt_interval_minutes"] = 0


def _reason(error: Exception) -> str:
    return ": ".join(map(str, error.args)).strip().split("\n")[0]
