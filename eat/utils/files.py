"""Files that exist in full or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def atomic_path(path: str | os.PathLike[str], sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block has succeeded.

    With `sync`, the file is flushed to disk before it is renamed.
    """
    path = Path(path)
    # Several processes and machines may write the same file at the same time.
    suffix = f"{socket.gethostname()}-{os.getpid()}.tmp"
    temporary = path.with_name(f".{path.name}.{suffix}")
    try:
        yield temporary
        if sync:
            sync_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a text file for writing that appears under its name only when complete.

    Characters that are not valid UTF-8 (in file names, say) are written escaped.
    """
    with (
        atomic_path(path) as temporary,
        open(
            temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file,
    ):
        yield file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    with atomic_open(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_to_disk(path: str | os.PathLike[str]) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
