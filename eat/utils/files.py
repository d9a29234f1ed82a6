"""Files that exist in full or not at all, append-only files, checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from eat.errors import ExperimentError

# Large, so that a thread that computes a checksum rarely waits for Python's lock.
_BLOCK = 2**24


@contextmanager
def atomic_path(path: str | os.PathLike[str], sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block has succeeded.

    It is an empty file with the permissions that the umask gives, which `path` gets
    even if the block replaces it by a private one. With `sync`, file and name are
    flushed to disk. A link at `path` is replaced, not followed.
    """
    path = Path(path)
    # Several processes and machines may write the same file at the same time.
    suffix = f"{socket.gethostname()}-{os.getpid()}.tmp"
    temporary = path.with_name(f".{path.name}.{suffix}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.touch(exist_ok=False)
        permissions = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(permissions)
        if sync:
            sync_to_disk(temporary)
        os.replace(temporary, path)
        if sync:
            sync_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield where to write a file or folder that becomes `path` when all succeeded.

    Raises `ExperimentError` if `path` exists, or nothing can be written there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # whether a file may have this name
        # Not named after `path`, whose name may be as long as names can be.
        temporary = tempfile.TemporaryDirectory(prefix=".eat-", dir=path.parent)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a part of the path is a file"
        raise ExperimentError(
            f"{path}: cannot be written, {reason} (check its folder, or give another)"
        ) from error
    with temporary as folder:
        _require_new(path)
        try:
            yield (new := Path(folder) / "new")
            _require_new(path)  # by another process
            os.rename(new, path)
        except OSError as error:
            if str(error.filename or folder).startswith(folder):
                error.filename, error.filename2 = str(path), None
            raise


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise ExperimentError(f"{path}: already exists (choose another name)")


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed processes of this machine in a folder."""
    pattern = re.compile(rf"\..+\.{re.escape(socket.gethostname())}-(\d+)\.tmp")
    for path in folder.glob(".*.tmp"):
        found = pattern.fullmatch(path.name)
        if found and not _is_running(int(found[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Return whether a process of this machine may be running."""
    if os.name == "nt" or process == os.getpid():
        return True  # on Windows, `os.kill` would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def require_regular(path: Path) -> None:
    """Raise `ExperimentError` if a path is a link, FIFO, device or folder."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
        raise ExperimentError(
            f"{path}: is {kind}, into which nothing is written (move it away, or give "
            "another --output_folder)"
        )


def open_append(path: Path) -> BinaryIO:
    """Open a file, new or not, for reading and appending, without a buffer.

    Raises `ExperimentError` if it is a link, FIFO or device: writing into it would
    change another file, or wait for good.
    """
    require_regular(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # where they exist
        flags |= getattr(os, name, 0)
    return open(os.open(path, flags, 0o666), "ab+", buffering=0)


def keep_copy(path: Path) -> Path:
    """Copy a file to the first free of ``NAME.1``, ``NAME.2`` ...; return that."""
    number = 1
    while os.path.lexists(copy := path.with_name(f"{path.name}.{number}")):
        number += 1
    with atomic_path(copy) as temporary:
        shutil.copyfile(path, temporary)
    return copy


@contextmanager
def atomic_open(path: str | os.PathLike[str], sync: bool = False) -> Iterator[TextIO]:
    """Open a text file for writing that appears under its name only when complete.

    Characters that are not valid UTF-8 (in file names, say) are written escaped.
    """
    with (
        atomic_path(path, sync) as temporary,
        open(
            temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file,
    ):
        yield file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic_open(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: object, sync: bool = False) -> None:
    """Write a value as indented JSON, atomically; with `sync`, flush it to disk."""
    with atomic_open(path, sync) as file:
        file.write(json.dumps(value, indent=1) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


def sync_to_disk(path: str | os.PathLike[str]) -> None:
    """Flush a file or folder to disk; Windows cannot flush a folder."""
    if os.name == "nt":
        if os.path.isdir(path):
            return
        flags = os.O_RDWR  # which it needs to flush
    else:
        flags = os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
