"""From a command line to a run: settings, experiment folder, errors in one line."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from io import StringIO
from pathlib import Path
from typing import TextIO

import speechbrain as sb
import yaml
from hyperpyyaml import resolve_references
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.seed import seed_everything

from eat.errors import (
    ExperimentError,
)
from eat.experiment.config import (
    SETTINGS,
    PlainLoader,
    instantiate,
    resolve,
    with_run_options,
)
from eat.experiment.fingerprint import differences, relevant_settings
from eat.experiment.process_group import init_process_group
from eat.utils.lock import lock_folder

logger = logging.getLogger(__name__)


def start_experiment(argv: Sequence[str]) -> tuple[dict, dict]:
    """Read the settings of a run and prepare its folder.

    Parameters
    ----------
    argv
        Arguments after the program's name: a YAML file, then SpeechBrain's run options
        and overrides of YAML keys.

    Returns
    -------
    tuple of dict
        The instantiated settings, and SpeechBrain's run options for the Brain.

    Raises
    ------
    ExperimentError
        If a setting is unknown or missing, the folder belongs to another run, or
        processes cannot be connected.
    LockError
        If another process is using the folder.
    """
    path, run_opts, overrides = sb.parse_arguments(list(argv))
    if not Path(path).is_file():
        raise ExperimentError(f"{path}: no such YAML file (see hparams/)")
    init_process_group(run_opts)
    text = Path(path).read_text(encoding="utf-8")
    overrides = with_run_options(text, overrides, run_opts)
    settings = resolve(path, text, overrides)
    run_on_main(_check_folder, args=[Path(settings["output_folder"]), settings])
    run_on_main(_lock, args=[Path(settings["output_folder"])])
    # Before the networks are built: the same weights in every process and every run.
    seed_everything(settings["seed"], verbose=False)
    hparams = instantiate(path, text, overrides)
    # Never hparams.update(run_opts): it would put SpeechBrain's defaults in place of
    # the YAML's precision, clipping and accumulation. The Brain merges them rightly.
    folder = Path(settings["output_folder"])
    sb.create_experiment_directory(experiment_directory=str(folder))
    run_on_main(_keep_settings, args=[folder, path, text, overrides])
    run_on_main(_keep_script, args=[folder])
    return hparams, run_opts


_LOCKS: list[TextIO] = []  # held until this process ends


def _lock(folder: Path) -> None:
    _LOCKS.append(lock_folder(folder))


def _keep_settings(folder: Path, path: str, text: str, overrides: str) -> None:
    """Write the settings as SpeechBrain does, but never half: a resume reads them."""
    partial = folder / f".{SETTINGS}.partial"
    resolved = resolve_references(StringIO(text), overrides).read()
    head = f"# Generated {date.today()} from:\n# {Path(path).resolve()}\n"
    partial.write_text(f"{head}# yamllint disable\n{resolved}", encoding="utf-8")
    os.replace(partial, folder / SETTINGS)


def _keep_script(folder: Path) -> None:
    """Keep a copy of the recipe's script; SpeechBrain keeps one of its caller, us."""
    (folder / Path(__file__).name).unlink(missing_ok=True)
    if Path(sys.argv[0]).is_file():
        shutil.copy(sys.argv[0], folder)


def _check_folder(folder: Path, settings: dict) -> None:
    """Refuse a folder that cannot be written or holds a run with other settings."""
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
    begun = (folder / "metrics.jsonl").exists() or any(folder.glob("save/CKPT*"))
    if not begun or not (folder / SETTINGS).is_file():
        return  # a start that failed must not bind the next one
    earlier = yaml.load((folder / SETTINGS).read_text(), Loader=PlainLoader)
    earlier = relevant_settings(earlier, earlier["output_folder"])
    if differing := differences(
        earlier, relevant_settings(settings, settings["output_folder"])
    ):
        raise ExperimentError(
            f"{folder}: holds a run with other settings ({differing}); give a new "
            "--output_folder, or repeat the first command to resume"
        )
