"""Start a run: read its settings, check and lock its folder, record what it is."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TextIO

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.seed import seed_everything

from eat.errors import ExperimentError
from eat.experiment.command_line import parse_command_line, require_device
from eat.experiment.config import SETTINGS, Config, load_config, read_settings
from eat.experiment.console import quiet_speechbrain
from eat.experiment.fingerprint import relevant_settings
from eat.experiment.help import help_text, wants_help
from eat.experiment.process_group import init_process_group
from eat.utils.files import write_text
from eat.utils.lock import lock_folder
from eat.utils.settings_diff import describe_changes

logger = logging.getLogger(__name__)

PRECISION_KEYS = ("precision", "eval_precision")

quiet_speechbrain()


def start_experiment(argv: Sequence[str]) -> tuple[dict, RunOptions]:
    """Read the settings of a run and prepare its folder.

    `argv` are the arguments after the program's name: a YAML file, then SpeechBrain's
    run options and overrides of YAML keys. Returns the settings with their objects
    built, and the run options for the Brain.

    Raises
    ------
    ExperimentError
        If a setting is unknown, missing or out of range, the folder belongs to another
        run, or the processes cannot be connected.
    LockError
        If another process is using the folder.
    """
    if wants_help(argv):
        print(help_text(argv))
        sys.exit()
    line = parse_command_line(argv)
    run_opts = line.run_opts
    config = load_config(line.path, line.overrides, run_opts)
    precisions = [str(config.values.get(key)) for key in PRECISION_KEYS]
    require_device(run_opts, precisions)
    init_process_group(run_opts)
    folder = Path(config.values["output_folder"])
    run_on_main(_claim_folder, args=[folder, config])
    # Before the networks are built: the same weights in every process and every run.
    seed_everything(config.values["seed"], verbose=False)
    hparams = config.instantiate()
    # Never hparams.update(run_opts): SpeechBrain's defaults would replace the YAML's
    # precision, clipping and accumulation. The Brain merges the two correctly.
    sb.create_experiment_directory(experiment_directory=str(folder))
    run_on_main(_record, args=[folder, config])
    logger.info("Run folder: %s", folder)
    return hparams, run_opts


_LOCKS: list[TextIO] = []  # held until this process ends


def _claim_folder(folder: Path, config: Config) -> None:
    """Create the folder and lock it, unless it holds a run with other settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ExperimentError(
            f"{folder}: cannot write there ({error.strerror}; choose another "
            "--output_folder)"
        ) from error
    # A start that failed before its first step must not bind the next one.
    if (folder / "metrics.jsonl").exists() or any(folder.glob("save/CKPT*")):
        _require_same_settings(folder, config)
    _LOCKS.append(lock_folder(folder))


def _require_same_settings(folder: Path, config: Config) -> None:
    earlier = read_settings(folder)
    current = relevant_settings(config.values)
    if earlier and (changes := describe_changes(relevant_settings(earlier), current)):
        raise ExperimentError(
            f"{folder}: holds a run with other settings ({changes}; use a new "
            "--output_folder, or re-run the first command to resume)"
        )


def _record(folder: Path, config: Config) -> None:
    """Keep the settings and the recipe's script in the folder.

    SpeechBrain would write the settings in place, where a kill leaves half of them, and
    has copied the script of its caller, this file.
    """
    head = f"# Generated {date.today()} from:\n# {Path(config.path).resolve()}\n"
    write_text(folder / SETTINGS, f"{head}# yamllint disable\n{config.text}")
    (folder / Path(__file__).name).unlink(missing_ok=True)
    if Path(sys.argv[0]).is_file():
        shutil.copy(sys.argv[0], folder)
