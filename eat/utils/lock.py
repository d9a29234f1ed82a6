"""One process at a time in an output folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import TextIO

from eat.errors import LockError

logger = logging.getLogger(__name__)

LOCK = ".lock"


def lock_folder(folder: Path) -> TextIO:
    """Lock an existing folder until this process ends, however it ends.

    Returns the lock file; closing it releases the lock. On a file system without locks
    there is a warning, and no lock. If another process holds it, raises `LockError`.
    """
    path = folder / LOCK
    file = open(path, "a+", encoding="utf-8")
    try:
        # Not flock: data workers would inherit the lock and hold it longer.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        holder = file.read().strip() or "unknown"
        file.close()
        raise LockError(
            f"{folder}: another process is using it ({holder}; wait until it ends or "
            "choose another --output_folder)"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
