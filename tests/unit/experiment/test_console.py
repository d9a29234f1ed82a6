"""The console shows our messages; SpeechBrain's routine ones go to log.txt."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from eat.experiment.console import quiet_speechbrain

ROOT = Path(__file__).parents[3]
IMPORT = "import eat.experiment.folder, speechbrain.utils.train_logger"


@pytest.fixture
def levels(caplog):
    """Log a message with SpeechBrain's logger; returns the level it arrives with."""
    quiet_speechbrain()
    caplog.set_level(logging.DEBUG)

    def log(level, message, name="core"):
        logging.getLogger(f"speechbrain.{name}").log(level, message)
        return caplog.records[-1].levelno

    return log


def test_routine_messages_are_demoted(levels):
    assert levels(logging.INFO, "Beginning experiment!") == logging.DEBUG
    assert levels(logging.INFO, "Applied quirks", "utils.quirks") == logging.DEBUG


def test_what_matters_stays(levels):
    assert levels(logging.WARNING, "Loss is not finite") == logging.WARNING
    assert levels(logging.INFO, "Brain Model Statistics:") == logging.INFO
    assert (
        levels(logging.INFO, "Going into epoch 1", "utils.epoch_loop") == logging.INFO
    )


@pytest.mark.slow
def test_imports_print_nothing():
    command = [sys.executable, "-W", "error::UserWarning", "-c", IMPORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout + done.stderr
