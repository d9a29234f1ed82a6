"""A recipe's command line: a YAML file, run options, overrides of its keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.experiment.schema import broken_rule, refusal
from eat.experiment.settings import RUN_OPTIONS, UNSUPPORTED, Setting

NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
DASHES = ("-", "\u2012", "\u2013", "\u2014", "\u2212")  # chats replace -- by these
WHERE = "options"


@dataclass(frozen=True)
class CommandLine:
    """The YAML file, SpeechBrain's run options, and the texts of the other options."""

    path: str
    run_opts: RunOptions
    overrides: dict[str, str]


def parse_command_line(argv: Sequence[str]) -> CommandLine:
    """Read the arguments after the program's name.

    An option is ``--key value`` or ``--key=value``; names are never abbreviated. Unlike
    SpeechBrain's, this parser keeps values as they are: its own joins them to a YAML
    text and reads that.

    Raises `ExperimentError` if an option is given twice, has no value, or is a run
    option that is unsupported or has a wrong value.
    """
    words, paths, given = list(argv), [], {}
    while words:
        word = words.pop(0)
        if not word.startswith(DASHES):
            paths.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not key or not word.startswith("--"):
            raise ExperimentError(f"{word}: not an option (write --key value)")
        if key in UNSUPPORTED:
            raise ExperimentError(f"--{key}: not supported ({UNSUPPORTED[key]})")
        if key in given:
            raise ExperimentError(f"--{key}: given twice (remove one)")
        given[key] = value if equals else _take_value(key, words)
    if len(paths) != 1:
        found = ", ".join(paths[1:]) or "no YAML file"
        raise ExperimentError(
            f"{found}: one YAML file must be given (python train.py hparams/FILE.yaml "
            "--key value)"
        )
    options = {
        key: _run_option(key, given.pop(key))
        for key in list(given)
        if key in RUN_OPTIONS
    }
    _check_together(options)
    run_opts = RunOptions(**options, param_file=paths[0], overridden_args=set(options))
    return CommandLine(paths[0], run_opts, given)


def _take_value(key: str, words: list[str]) -> Any:
    """Remove and return an option's value from the words behind it."""
    kind = RUN_OPTIONS[key].kind if key in RUN_OPTIONS else ""
    if kind == "flag":
        return True
    if kind == "names":
        names = []
        while words and not words[0].startswith("--"):
            names.append(words.pop(0))
        return names
    if not words or words[0].startswith("--"):
        raise ExperimentError(f"--{key}: has no value (write --{key} value)")
    return words.pop(0)


def _run_option(key: str, value: Any) -> Any:
    """Return the value of a run option."""
    setting = RUN_OPTIONS[key]
    if setting.kind == "flag" and value is not True:
        raise ExperimentError(f"--{key}={value}: takes no value (write --{key})")
    if setting.kind == "names" and isinstance(value, str):
        value = value.split(",")
    if isinstance(value, str):
        value = read_scalar(value, setting)
    if rule := broken_rule(setting, value):
        raise refusal(WHERE, f"--{key}", value, rule)
    return value


def read_scalar(text: str, setting: Setting) -> Any:
    """Return the text as what its setting is; the text itself if it is no such thing.

    Numbers are decimal, ``1e-4`` included; text is kept as it is.
    """
    word = text.strip()
    if setting.nullable and word in ("null", "~"):
        return None
    if setting.kind == "boolean":
        return {"true": True, "false": False}.get(word.lower(), text)
    if setting.kind in ("integer", "number") and len(word) < 100:
        if not NUMBER.fullmatch(word):
            return text
        if word.lstrip("+-").isdigit():
            return int(word)
        value = float(word)
        whole = setting.kind == "integer" and value.is_integer()
        return int(value) if whole else value
    if setting.kind == "name" and word.isascii() and word.isdigit():
        return int(word) if str(int(word)) == text else text
    return text


def _check_together(options: dict[str, Any]) -> None:
    """Raise `ExperimentError` if run options contradict each other."""
    minutes, steps = "ckpt_interval_minutes", "ckpt_interval_steps"
    if options.get(minutes) and options.get(steps):
        raise ExperimentError(f"--{minutes} and --{steps}: both given (remove one)")


def require_device(run_opts: RunOptions, precisions: Sequence[str]) -> None:
    """Raise `ExperimentError` if the device is missing or lacks one of the precisions.

    SpeechBrain, too, takes the best device there is if none was requested.
    """
    name = run_opts.device or infer_device()
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ExperimentError(f"--device {name}: no GPU found (use --device cpu)")
        count = torch.cuda.device_count()
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ExperimentError(f"--device {name}: there are {count} GPUs, from 0")
        torch.ones(1, device=device).item()  # not of "meta"
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = re.split(r"\. |\n", str(error))[0]
        raise ExperimentError(
            f"--device {name}: {reason} (use cpu, cuda or cuda:N)"
        ) from None
    if device.type == "cpu" and "fp16" in precisions:
        raise ExperimentError(
            "precision is fp16, which needs a GPU (use bf16 or fp32, for "
            "eval_precision, too)"
        )
