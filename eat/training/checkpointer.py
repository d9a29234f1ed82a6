"""Checkpoints that exist whole or not at all, and are read only if unaltered."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from logging import DEBUG
from pathlib import Path
from typing import Any

import yaml
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer, ckpt_recency
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from eat.errors import CorruptCheckpointError
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size

logger = logging.getLogger(__name__)

PARTIAL = ".partial-"
SUMS = "SHA256.json"
LAG = 60  # seconds a network file system may take to show a file everywhere
CHECKPOINT_META = {"unixtime", "end-of-epoch"}  # beside the caller's


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, writing aside and renaming once complete.

    SpeechBrain writes the metadata first, so that a run killed while it saves leaves
    a folder which the next start picks and fails on. Here an unfinished folder has
    another name, is never picked, and goes when the next checkpoint is written. Every
    file's checksum lies beside it and is compared before anything is read.
    """

    def save_checkpoint(
        self,
        meta: dict | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Save as SpeechBrain does; the folder appears when it is complete."""
        if if_main_process():
            self._remove_partials()
        meta = {"unixtime": self._now(), **(meta or {})}
        try:
            # SpeechBrain would announce the folder by its passing name.
            saved = super().save_checkpoint(meta, end_of_epoch, name, DEBUG)
            ddp_barrier()  # other ranks may write into the folder as well
            published = saved and self._publish(saved, verbosity)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError for both
            if not if_main_process() or is_connection_error(error):
                raise  # another process has failed, and says why
            raise CorruptCheckpointError(self._cannot_write(error)) from error
        ddp_barrier()  # no rank lists the checkpoints before this one is there
        return published

    def _cannot_write(self, error: Exception) -> str:
        """Say what happened, and what is left to go on from."""
        for folder in Path(self.checkpoints_dir).glob(f"{PARTIAL}*"):
            shutil.rmtree(folder, ignore_errors=True)
        newest = self.find_checkpoint()
        left = f"{newest.path} is complete" if newest else "there is none before it"
        reason = str(error).strip().splitlines()[0]
        return (
            f"{self.checkpoints_dir}: the checkpoint cannot be written, {reason} "
            f"({left}; free space or mend the disk and repeat the command)"
        )

    def list_checkpoints(self) -> list[Checkpoint]:
        """List all checkpoints.

        Raises
        ------
        CorruptCheckpointError
            If one has lost what says which it is: the next start would pass it over.
        """
        for folder in Path(self.checkpoints_dir).glob("CKPT*"):
            if folder.is_dir() and not _has_meta(folder):
                raise CorruptCheckpointError(_refusal(folder, "CKPT.yaml"))
        return super().list_checkpoints()

    def recover_if_possible(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Recover as SpeechBrain does, all processes from the same checkpoint.

        The main one picks it: on network file systems others may see an older list.
        """
        mine = self.find_checkpoint(*args, **kwargs) if if_main_process() else None
        chosen, *_ = all_gather_objects(mine)
        if chosen is None:
            logger.info("No checkpoint to go on from")
        else:
            self.load_checkpoint(chosen)
        return chosen

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: list[str] | None = None,
        max_keys: list[str] | None = None,
        importance_keys: Sequence[Callable] = (ckpt_recency,),
        ckpt_predicate: Callable | None = None,
        verbosity: int = DEBUG,
    ) -> None:
        """Delete by SpeechBrain's rules, but never half of a checkpoint."""
        if if_main_process():
            rules: list[dict] = [{"min_key": key} for key in min_keys or ()]
            rules += [{"max_key": key} for key in max_keys or ()]
            rules += [{"importance_key": key} for key in importance_keys]
            for rule in rules:
                rule["ckpt_predicate"] = ckpt_predicate
            kept, every = (
                {c for rule in rules for c in self.find_checkpoints(**rule, **most)}
                for most in ({"max_num_checkpoints": num_to_keep}, {})
            )
            for checkpoint in every - kept:
                self._delete(checkpoint, verbosity)
        ddp_barrier()

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint that is as it was written.

        Raises
        ------
        CorruptCheckpointError
            If a file is missing, truncated or altered.
        """
        _await(checkpoint.path / SUMS)
        if wrong := _altered(checkpoint.path):
            raise CorruptCheckpointError(_refusal(checkpoint.path, wrong))
        super().load_checkpoint(checkpoint)

    def save_and_keep_only(
        self,
        *args: Any,
        importance_keys: list[Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save, then delete all but the best or newest, as SpeechBrain does.

        Its default list of keys is shared between calls and grows with each.
        """
        keys = list(importance_keys or [])
        super().save_and_keep_only(*args, importance_keys=keys, **kwargs)

    @staticmethod
    def _publish(saved: Checkpoint, verbosity: int) -> Checkpoint:
        """Give a complete checkpoint its final name."""
        final = saved.path.with_name(saved.path.name.removeprefix(PARTIAL))
        (saved.path / SUMS).write_text(json.dumps(_sums(saved.path)), encoding="utf-8")
        for path in (*saved.path.iterdir(), saved.path):
            _flush(path)  # or a machine that goes down keeps the name without content
        os.rename(saved.path, final)
        _flush(final.parent)
        logger.log(verbosity, "Saved checkpoint %s", final)
        files = {key: final / Path(p).name for key, p in saved.paramfiles.items()}
        return Checkpoint(final, saved.meta, files)

    def _now(self) -> float:
        """The time, later than that of every checkpoint whatever the clocks say.

        The newest is known by its time, and another machine may have written it.
        """
        newest = self.find_checkpoint()
        return max(time.time(), newest.meta["unixtime"] + 1e-3 if newest else 0)

    @staticmethod
    def _delete(checkpoint: Checkpoint, verbosity: int) -> None:
        """Take a checkpoint's name, then its files."""
        aside = _aside(checkpoint.path)
        os.rename(checkpoint.path, aside)
        shutil.rmtree(aside)
        logger.log(verbosity, "Deleted checkpoint %s", checkpoint.path)

    def _new_checkpoint_dirpath(self) -> Path:
        return _aside(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        return _aside(super()._custom_checkpoint_dirpath(name))

    def _remove_partials(self) -> None:
        for folder in Path(self.checkpoints_dir).glob(f"{PARTIAL}*"):
            shutil.rmtree(folder)


def _flush(path: Path) -> None:
    """Have the disk hold a file or folder before what comes next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but the list of sums itself."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with open(path, "rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _altered(folder: Path) -> str | None:
    """The first file of a checkpoint that is not as it was written."""
    try:
        written = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SUMS
    found = _sums(folder)
    return next((name for name in written if found.get(name) != written[name]), None)


def _has_meta(folder: Path) -> bool:
    try:
        meta = yaml.safe_load((folder / "CKPT.yaml").read_text(encoding="utf-8"))
        return isinstance(meta, dict) and CHECKPOINT_META <= meta.keys()
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _refusal(folder: Path, name: str) -> str:
    return (
        f"{folder / name}: missing, truncated or altered since it was written (remove "
        f"the folder {folder.name} to go on from the checkpoint before it)"
    )


def _await(path: Path) -> None:
    """Wait a while for what another machine has written."""
    deadline = time.monotonic() + (LAG if world_size() > 1 else 0)
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)


def _aside(path: Path) -> Path:
    return path.with_name(PARTIAL + path.name)
