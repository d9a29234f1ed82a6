"""One process at a time in an output folder."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from eat.errors import LockError
from eat.utils.files import open_append

logger = logging.getLogger(__name__)

LOCK = ".lock"
WAIT_SECONDS = 0.2
LOCK_BYTE = 1 << 30  # on Windows: beyond the text, which would be unreadable

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(LOCK_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        # Not flock: data workers would inherit the lock and hold it longer.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(
    folder: Path, name: str = LOCK, option: str = "--output_folder"
) -> BinaryIO:
    """Lock an existing folder until this process ends, however it ends.

    Locks of different names do not exclude each other. `option` is what a user can give
    to use another folder.

    Returns the lock file; closing it releases the lock. On a file system without locks
    there is a warning, and no lock.

    Raises
    ------
    LockError
        If another process holds the lock, or this user may not take it.
    ExperimentError
        If the lock file is a link or no regular file.
    """
    path = folder / name
    try:
        file = open_append(path)
    except PermissionError as error:
        raise LockError(
            f"{path}: cannot be opened, {error.strerror} (it belongs to another user: "
            f"ask for write permission, or choose another {option})"
        ) from None
    try:
        _lock(file)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning(
                "%s: the file system does not support locking (%s): do not start a "
                "second run in this folder",
                folder,
                error.strerror,
            )
            return file
        file.seek(0)
        holder = file.read(200).decode(errors="replace").strip() or "unknown"
        file.close()
        raise LockError(
            f"{folder}: another process is using it ({holder}; wait until it ends or "
            f"choose another {option})"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; `path` is a file for the lock only.

    It is removed at the end, so that another process may then enter together with one
    that has been waiting: the block has to see whether its work is done. On a file
    system without locks, nobody waits.
    """
    with open_append(path) as file:
        with suppress(OSError):
            while not _is_locked(file):
                time.sleep(WAIT_SECONDS)
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows it is in use
                path.unlink()


def _is_locked(file: BinaryIO) -> bool:
    """Return whether the lock could be taken; False if another process holds it."""
    try:
        _lock(file)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True
