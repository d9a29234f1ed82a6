"""Start a run: read its settings, check and lock its folder, record what it is."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import BinaryIO

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.seed import seed_everything

from eat.errors import ExperimentError, printable
from eat.experiment.command_line import parse_command_line, require_device
from eat.experiment.config import SETTINGS, Config, load_config, read_settings
from eat.experiment.console import quiet_speechbrain
from eat.experiment.fingerprint import relevant_settings
from eat.experiment.help import help_text, wants_help
from eat.experiment.process_group import init_process_group
from eat.utils.files import (
    atomic_path,
    remove_temporaries,
    require_regular,
    write_text,
)
from eat.utils.lock import LOCK, lock_folder
from eat.utils.settings_diff import describe_changes

logger = logging.getLogger(__name__)

PRECISION_KEYS = ("precision", "eval_precision")

quiet_speechbrain()

PROGRESS = "progress.json"  # which checkpoints have been saved
# What a run writes into its folder: files that grow, files that are replaced, folders.
APPENDED = (LOCK, "log.txt", "metrics.jsonl", "skipped.jsonl", "train_log.txt")
REPLACED = (
    SETTINGS,
    PROGRESS,
    "env.log",
    "results.json",
    "class_ap.txt",
    "confusion.csv",
)
FOLDERS = ("save", "model", "models")


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
    script = folder / Path(__file__).name
    run_on_main(_remove, args=[script, folder / "env.log"])
    sb.create_experiment_directory(experiment_directory=str(folder))
    run_on_main(_remove, args=[script])
    run_on_main(_record, args=[folder, config])
    logger.info("Run folder: %s", folder)
    return hparams, run_opts


_LOCKS: list[BinaryIO] = []  # held until this process ends


def _claim_folder(folder: Path, config: Config) -> None:
    """Create the folder and lock it, unless it holds a run with other settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExperimentError(
            f"{folder}: cannot write there ({error.strerror}; choose another "
            "--output_folder)"
        ) from error
    if not _may(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ExperimentError(_not_writable(folder))
    _require_usable(folder)
    # A start that failed before its first step must not bind the next one.
    if any((folder / name).exists() for name in ("metrics.jsonl", PROGRESS)) or any(
        folder.glob("save/CKPT*")
    ):
        _require_same_settings(folder, config)
    _LOCKS.append(lock_folder(folder))
    for place in (folder, folder / "model", *folder.glob("models/*")):
        remove_temporaries(place)


def _require_usable(folder: Path) -> None:
    """Refuse files that cannot be written, or into which nothing must be written.

    A link in place of a file may lead to a file of somebody else. A link to another
    folder is fine, such as ``save`` on a larger disk.
    """
    for name in (*APPENDED, *REPLACED):
        require_regular(folder / name)
    for name in APPENDED:
        if (folder / name).exists() and not _may(folder / name, os.R_OK | os.W_OK):
            raise ExperimentError(_not_writable(folder / name))
    for path in (folder / name for name in FOLDERS):
        if path.is_dir():
            if not _may(path, os.R_OK | os.W_OK | os.X_OK):
                raise ExperimentError(_not_writable(path))
        elif os.path.lexists(path):
            state = "a link to nothing" if path.is_symlink() else "not a folder"
            raise ExperimentError(
                f"{path}: is {state} (mount or bring back the folder, or give another "
                "--output_folder)"
            )


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _not_writable(path: Path) -> str:
    return (
        f"{path}: cannot be read and written by this user (ask the owner of the run to "
        "permit it, or copy the run to another --output_folder)"
    )


def _require_same_settings(folder: Path, config: Config) -> None:
    try:
        earlier = read_settings(folder)
    except ExperimentError as error:  # the checkpoints hold the settings as well
        logger.warning("%s; it is written again", error)
        return
    current = relevant_settings(config.values)
    if earlier and (changes := describe_changes(relevant_settings(earlier), current)):
        raise ExperimentError(
            f"{folder}: holds a run with other settings ({changes}; use a new "
            "--output_folder, or re-run the first command to resume)"
        )


def _remove(*paths: Path) -> None:
    """Remove what SpeechBrain would write into, or has written needlessly.

    It copies the script of its caller, which is this file.
    """
    for path in paths:
        path.unlink(missing_ok=True)


def _record(folder: Path, config: Config) -> None:
    """Keep the settings and the recipe's script in the folder.

    SpeechBrain would write the settings in place, where a kill leaves half of them.
    """
    source = printable(str(Path(config.path).resolve()))
    head = f"# Generated {date.today()} from:\n# {source}\n"
    write_text(folder / SETTINGS, f"{head}# yamllint disable\n{config.text}")
    if (script := Path(sys.argv[0])).is_file():
        with atomic_path(folder / script.name) as copy:
            shutil.copyfile(script, copy)
