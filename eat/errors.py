"""Every error class of the toolkit, and the one place that turns them into a line.

A message has the form ``where: what is wrong (how to fix it)``.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

logger = logging.getLogger(__name__)

# What to do about errors of the operating system, by number.
REMEDIES = {
    errno.EACCES: "check its owner and permissions",
    errno.EPERM: "check its owner and permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "a file is needed, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some disk space",
    errno.EMFILE: "raise the limit, `ulimit -n`, or use fewer data workers",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOMEM: "use smaller batches or fewer data workers",
    errno.EIO: "check the disk or the network",
    errno.ESTALE: "check the network file system",
}


def printable(text: str) -> str:
    """Return a text in which all that is not printable is escaped, as in ``\\x1b``.

    These are control characters, line breaks, marks that change the direction of text,
    and bytes of file names that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class EATError(Exception):
    """Base class of all errors that a user can act on; the message is one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


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


class SafeLogRecord(logging.LogRecord):
    """A log record whose arguments cannot alter the terminal or forge log lines."""

    def getMessage(self) -> str:  # noqa: N802 (logging's name)
        """Return the message, with what is not printable escaped."""
        if isinstance(self.args, tuple):
            self.args = tuple(map(_safe_argument, self.args))
        lines = super().getMessage().split("\n")
        return "\n".join(map(printable, lines))


def _safe_argument(value: object) -> object:
    text = isinstance(value, str | os.PathLike | BaseException)
    return printable(str(value)) if text else value


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn expected errors into one line on the console and an exit status.

    A context manager, and the decorator of the scripts' ``main``.

    Expected are the errors of this toolkit, of the operating system (files, memory,
    terminal) and an interruption; others keep their traceback. The status is 1 for an
    error and ``128 + signal`` for an interrupted run, as a shell reports it.
    """
    logging.setLogRecordFactory(SafeLogRecord)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:  # also of argparse's --help
            print(end="", flush=True)
            raise
        print(end="", flush=True)  # also without a standard output
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError as error:
        if error.filename is not None:
            _exit_with_line(error)
        _drop_output()  # nobody reads it any more: `| head`
        sys.exit(128 + signal.SIGPIPE)
    except (EATError, OSError, MemoryError) as error:
        _exit_with_line(error)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        _exit_with_line(error)


def _drop_output() -> None:
    """Drop what was printed and cannot be written; Python would try it once more."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_with_line(error: Exception) -> NoReturn:
    _drop_output()
    logger.debug("The run ended with an error", exc_info=True)  # to log.txt
    sys.exit(f"error: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """Return an expected error as one printable line, with a remedy if there is one."""
    text = _own_message(error)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        reason = printable(text.split("\n")[0]) or "allocation failed"
        return f"out of memory: {reason} (use smaller batches or fewer workers)"
    if isinstance(error, OSError):
        if error.strerror:
            where = os.fsdecode(error.filename or "input or output")
            text = f"{where}: {error.strerror}"
        number = error.errno or _number_of(text)
        remedy = REMEDIES.get(
            number or 0, "check the path, its permissions and the disk"
        )
        text = f"{text} ({remedy}, then re-run the same command)"
    return printable(text)


def _own_message(error: BaseException) -> str:
    """Return the message; that of an error in a data worker without its traceback."""
    text = str(error.args[0]) if len(error.args) == 1 else str(error)
    if not re.match(r"Caught \w+ in ", text):
        return text.strip()
    # The lines of the traceback are indented, the error's name after them is not.
    named = re.split(r"^ .*\n(?=\S)", text, flags=re.MULTILINE)[-1]
    return re.sub(r"^[\w.]+(: |$)", "", named.strip(), count=1)


def _number_of(text: str) -> int | None:
    """Return the number of a system error that a data worker has passed on as text."""
    found = re.search(r"\[Errno (\d+)\]", text)
    return int(found[1]) if found else None


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is torch's error, of a GPU or of the CPU's allocator."""
    known = ("out of memory", "can't allocate memory", "not enough memory")
    by_name = type(error).__name__ == "OutOfMemoryError"
    return by_name or (
        isinstance(error, RuntimeError) and any(x in str(error) for x in known)
    )
