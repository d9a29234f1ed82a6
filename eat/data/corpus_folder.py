"""The folder of a corpus: what is in it, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from eat.errors import ManifestError

_ARCHIVE = re.compile(r".*\.(zip|tgz|tar(\.\w+)?)", re.IGNORECASE)
_INCOMPLETE = (".part", ".crdownload", ".download", ".incomplete", ".aria2")

Stamp = tuple[int, int]  # size in bytes, modification time in ns


def find_corpus(data_folder: Path, name: str, landmark: str) -> str:
    """Return the prefix of a corpus in a folder, ``""`` or ``"<name>/"``.

    The corpus is recognized by the file `landmark` in it.
    """
    require_folder(data_folder)
    for prefix in ("", f"{name}/"):
        if (data_folder / prefix / landmark).is_file():
            return prefix
    refuse_archives(data_folder.glob("*"))
    raise ManifestError(
        f"{data_folder}: no {landmark} in it or in {name}/ "
        f"(data_folder must be the unpacked {name})"
    )


def require_folder(data_folder: Path) -> None:
    """Raise `ManifestError` if there is no such folder."""
    if data_folder.is_file():
        refuse_archives([data_folder])
        raise ManifestError(f"{data_folder}: a file, not a folder (check data_folder)")
    if not data_folder.is_dir():
        raise ManifestError(f"{data_folder}: no such folder (check data_folder)")


def refuse_archives(paths: Iterable[Path]) -> None:
    """Raise `ManifestError` if one is an archive, or an incomplete download."""
    paths = sorted(paths)
    if part := next((p for p in paths if p.suffix in _INCOMPLETE), None):
        raise ManifestError(f"{part}: an incomplete download (finish or remove it)")
    if path := next((p for p in paths if _ARCHIVE.fullmatch(p.name)), None):
        unzip = "unzip -q {} -d {}"
        command = unzip if path.suffix.lower() == ".zip" else "tar -xf {} -C {}"
        files = (shlex.quote(str(p)) for p in (path, path.parent))
        raise ManifestError(f"{path}: not unpacked ({command.format(*files)})")


def refuse_unreadable(error: OSError) -> NoReturn:
    """Raise `ManifestError` for a folder that cannot be listed."""
    raise ManifestError(
        f"{error.filename}: cannot be read: {error.strerror} (check its permissions)"
    ) from None


def list_files(root: Path, folders: Iterable[str]) -> list[str]:
    """Return the files directly in some subfolders of `root`, sorted.

    Hidden files are skipped; a subfolder that does not exist has no files.
    """
    files = []
    for folder in folders:
        if (root / folder).is_dir():
            try:
                with os.scandir(root / folder) as entries:
                    files_only = [e.name for e in entries if e.is_file()]
            except OSError as error:
                refuse_unreadable(error)
            names = [name for name in files_only if name[0] != "."]
            files += [f"{folder}/{name}" for name in names]
    return sorted(files)


def fingerprint(root: Path, files: Sequence[str]) -> str:
    """Return a checksum that changes when a file is added, removed or replaced."""
    digest = hashlib.sha256()
    paths = [os.path.join(root, file) for file in files]
    for file, stamp in zip(files, file_stamps(paths), strict=True):
        digest.update(os.fsencode(file) + b"/%d/%d/" % stamp)
    return digest.hexdigest()


def file_stamps(paths: Sequence[str]) -> list[Stamp]:
    """Return the stamp of each file, zeros if it does not exist."""
    stamps = []
    for path in paths:
        try:
            status = os.stat(path)
            stamps.append((status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((0, 0))
    return stamps
