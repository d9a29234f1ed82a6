"""One run at a time in an experiment folder."""

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
    """Take a folder until this process ends, however it ends.

    Parameters
    ----------
    folder
        An experiment's folder; must exist.

    Returns
    -------
    TextIO
        The open lock file: the folder is free again when it is closed.

    Raises
    ------
    LockError
        If another process has taken it.
    """
    path = folder / LOCK
    file = open(path, "a+", encoding="utf-8")
    try:
        # Not flock, which data workers would inherit and hold for a while longer.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning(
                "%s: its file system knows no locks (%s): nothing keeps a second run "
                "from the same folder",
                folder,
                error.strerror,
            )
            return file
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise LockError(
            f"{folder}: another run is using it ({holder}; wait for its end or give "
            "another --output_folder)"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
