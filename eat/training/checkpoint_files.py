"""Whether the files of a checkpoint are what was written, and what to do if not."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, PARAMFILE_EXT

from eat.errors import ExperimentError
from eat.utils.files import sha256_file

CHECKSUMS = "SHA256.json"
CHECKPOINT_META = {"unixtime", "end-of-epoch"}  # SpeechBrain's own keys


def own_metrics(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's metadata says of its epoch, without SpeechBrain's."""
    return {key: value for key, value in meta.items() if key not in CHECKPOINT_META}


@contextmanager
def readable() -> Iterator[None]:
    """Turn an error of the disk or of permissions into one line.

    Such an error does not mean that a checkpoint is damaged.
    """
    try:
        yield
    except OSError as error:
        raise ExperimentError(
            f"{error.filename}: cannot be read: {error.strerror} (check its "
            "permissions and the disk, then re-run the same command)"
        ) from error


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the folders of all checkpoints; raise `OSError` if they are unreadable."""
    with os.scandir(folder) as entries:
        found = [Path(x.path) for x in entries if x.name.startswith(CKPT_PREFIX)]
    return sorted(path for path in found if path.is_dir())


def has_valid_meta(folder: Path) -> bool:
    """Return whether the metadata of a checkpoint are present and unchanged."""
    try:
        meta = yaml.safe_load(_content(folder / METAFNAME))
    except (FileNotFoundError, ValueError, yaml.YAMLError, RecursionError):
        return False
    if not (isinstance(meta, dict) and CHECKPOINT_META <= meta.keys()):
        return False
    if not isinstance(meta["unixtime"], int | float):
        return False
    # Without checksums, the checkpoint is refused when it is loaded.
    checksums = _read_checksums(folder)
    return checksums is None or not _has_changed(folder, METAFNAME, checksums)


def first_changed_file(folder: Path) -> Path | None:
    """Return a file of a checkpoint that differs from its checksum, if there is one.

    A file to load that has no checksum counts as changed.
    """
    checksums = _read_checksums(folder)
    if checksums is None:
        return folder / CHECKSUMS
    loaded = {path.name for path in folder.glob(f"*{PARAMFILE_EXT}")}
    for name in sorted(checksums.keys() | loaded):
        if _has_changed(folder, name, checksums):
            return folder / name
    return None


def describe_damage(path: Path) -> str:
    """Return a message about a damaged file: which checkpoint can be used instead."""
    save = path.parent.parent
    folders = checkpoint_folders(save)
    sound = [x for x in folders if has_valid_meta(x) and not first_changed_file(x)]
    if not sound:
        remedy = (
            "no other checkpoint is complete: bring this one back from a backup, or "
            "give another --output_folder"
        )
    else:
        newest = max(sound, key=_time)
        damaged = ", ".join(x.name for x in folders if x not in sound)
        remedy = f"move {damaged} away to resume from {newest.name}"
    return f"{path}: missing, truncated or altered ({remedy})"


def _time(folder: Path) -> float:
    return yaml.safe_load(_content(folder / METAFNAME))["unixtime"]


def _content(path: Path) -> str:
    """Return the text of a file; what is no file is taken for a missing one."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FileNotFoundError(path)
    return path.read_text(encoding="utf-8")


def _read_checksums(folder: Path) -> dict[str, str] | None:
    """Return the checksums of a checkpoint's files, None if they are missing."""
    try:
        checksums = json.loads(_content(folder / CHECKSUMS))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return checksums if isinstance(checksums, dict) else None


def _has_changed(folder: Path, name: str, checksums: dict[str, str]) -> bool:
    """Return whether a file is not the one with this name's checksum."""
    path = folder / name
    if path.parent != folder or Path(name).name != name:
        return True  # not in the folder
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
    return not is_file or sha256_file(path) != checksums.get(name)
