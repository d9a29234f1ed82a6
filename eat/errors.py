"""Every error class of the toolkit, and the one place that turns them into a line.

A message has the form ``where: what is wrong (how to fix it)``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class EATError(Exception):
    """Base class of all errors that a user can act on; the message is one line."""


class AudioError(EATError, ValueError):
    """An audio file cannot be used."""


class AudioNotFoundError(AudioError):
    """An audio file does not exist."""


class ManifestError(EATError, ValueError):
    """A manifest, label list or corpus folder cannot be used."""


class ClipError(EATError):
    """An unexpected error while loading a clip."""


class CheckpointError(EATError, ValueError):
    """A model checkpoint is missing, corrupt or belongs to another model."""


class CorruptCheckpointError(EATError, RuntimeError):
    """A run's checkpoint cannot be written, or has changed since it was written."""


class ExperimentError(EATError, ValueError):
    """A run cannot start or continue with the given settings."""


class CollapseError(EATError, RuntimeError):
    """Pre-training has collapsed."""


class LockError(EATError, RuntimeError):
    """Another process is using the folder."""


class Interrupted(Exception):  # noqa: N818 (requested by the user, not an error)
    """The signal with this number ended a run early."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn expected errors into one line on the console and an exit status.

    The status is 1 for an error and ``128 + signal`` for an interrupted run, as a shell
    reports it.
    """
    try:
        yield
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        sys.exit(128 + stop.number)
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        sys.exit(
            f"error: {error.filename or 'output'}: cannot be written: {error.strerror} "
            "(free some disk space and re-run the same command to resume)"
        )
    except EATError as error:
        logger.debug("The run ended with an error", exc_info=True)  # to log.txt
        sys.exit(f"error: {_last_line(error)}")


def _last_line(error: EATError) -> str:
    """Return the message; an error in a data worker brings the worker's traceback."""
    line = str(error).strip().splitlines()[-1]
    return re.sub(r"^[a-z_.]+[A-Z][A-Za-z]+Error: ", "", line)
