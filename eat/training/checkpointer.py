"""Checkpoints that are written atomically and verified before they are loaded."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import DEBUG
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    Checkpoint,
    Checkpointer,
    ckpt_recency,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from eat.errors import CorruptCheckpointError
from eat.training.checkpoint_files import (
    CHECKSUMS,
    checkpoint_folders,
    describe_damage,
    first_changed_file,
    has_valid_meta,
    readable,
)
from eat.utils.distributed import all_gather_objects, is_connection_error, world_size
from eat.utils.files import sha256_file, sync_to_disk, write_json

logger = logging.getLogger(__name__)

PARTIAL = ".partial-"  # prefix of folders that are being written or deleted
LAG = 60  # seconds a network file system may take to show a file on all machines


class CheckpointInterval:
    """How often checkpoints are saved within an epoch, by batches or minutes; 0: never.

    The owner counts the `batches` since the interval started.
    """

    def __init__(self, every_batches: int, every_minutes: float) -> None:
        self.every_batches = every_batches
        self.every_minutes = every_minutes
        self.start()

    def start(self) -> None:
        """Start an interval."""
        self.batches, self._started = 0, time.monotonic()

    def is_over(self) -> bool:
        """Return whether a checkpoint is due."""
        minutes = (time.monotonic() - self._started) / 60
        return (
            0 < self.every_batches <= self.batches or 0 < self.every_minutes < minutes
        )


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, with atomic writes and checksums.

    SpeechBrain writes the metadata first: a run killed while it saves leaves a folder
    that the next start picks and fails on. Here SpeechBrain writes into a temporary
    folder, which is renamed when it is complete. The checksum of every file is stored
    with the checkpoint and verified before loading.
    """

    checkpoints_dir: Path

    def save_checkpoint(
        self,
        meta: dict | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Save as SpeechBrain does; the folder appears when it is complete."""
        meta = {"unixtime": self._timestamp(), **(meta or {})}
        name = name or self._new_name()
        try:
            with self._temporary_folder():
                saved = super().save_checkpoint(meta, end_of_epoch, name, DEBUG)
            ddp_barrier()  # other ranks may have recoverables to write as well
            published = saved and self._publish(saved, verbosity)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError as well
            if not if_main_process() or is_connection_error(error):
                raise  # another process reports the cause
            raise CorruptCheckpointError(self._write_failure(error)) from error
        ddp_barrier()  # no rank lists the checkpoints before this one exists
        return published

    def list_checkpoints(self) -> list[Checkpoint]:
        """List all checkpoints, the newest first.

        SpeechBrain lists them in any order, in which the first of several best wins.

        Raises
        ------
        CorruptCheckpointError
            If the metadata of one is missing or altered: SpeechBrain would ignore it,
            or take it for another epoch's.
        """
        with readable():
            for folder in checkpoint_folders(self.checkpoints_dir):
                if not has_valid_meta(folder):
                    raise CorruptCheckpointError(describe_damage(folder / METAFNAME))
            found = super().list_checkpoints()
        return sorted(found, key=ckpt_recency, reverse=True)

    def recover_if_possible(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Recover as SpeechBrain does, on all ranks from the main process's choice.

        On a network file system the other ranks may see an outdated list.
        """
        own = None
        if if_main_process():
            own = self.find_checkpoint(*args, **kwargs)
            self._remove_partials()
        chosen, *_ = all_gather_objects(own)
        if chosen is None:
            logger.info("No checkpoint to resume from")
        else:
            self.load_checkpoint(chosen)
        return chosen

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint after verifying its checksums.

        Raises
        ------
        CorruptCheckpointError
            If a file is missing, truncated or altered.
        ExperimentError
            If a file cannot be read.
        """
        self.verify(checkpoint)
        super().load_checkpoint(checkpoint)

    def verify(self, checkpoint: Checkpoint) -> None:
        """Raise if a checkpoint is damaged, see :meth:`load_checkpoint`."""
        _wait_for(checkpoint.path / CHECKSUMS)
        with readable():
            if changed := first_changed_file(checkpoint.path):
                raise CorruptCheckpointError(describe_damage(changed))

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Sequence[str] | None = None,
        max_keys: Sequence[str] | None = None,
        importance_keys: Sequence[Callable] = (ckpt_recency,),
        ckpt_predicate: Callable | None = None,
        verbosity: int = DEBUG,
    ) -> None:
        """Delete by SpeechBrain's rules, on the main process only, and atomically.

        Every key ranks the checkpoints for which `ckpt_predicate` is true; those that
        are not among the first `num_to_keep` of any ranking are deleted.
        """
        rankings: list[dict[str, Any]] = [
            *({"min_key": key} for key in min_keys or ()),
            *({"max_key": key} for key in max_keys or ()),
            *({"importance_key": key} for key in importance_keys),
        ]
        if if_main_process():
            ranked: set[Checkpoint] = set()
            kept: set[Checkpoint] = set()
            for ranking in rankings:
                found = self.find_checkpoints(**ranking, ckpt_predicate=ckpt_predicate)
                ranked.update(found)
                kept.update(found[:num_to_keep])
            for checkpoint in ranked - kept:
                self._delete(checkpoint, verbosity)
        ddp_barrier()

    def delete_within_epoch(self, num_to_keep: int, with_epochs: bool = False) -> None:
        """Delete checkpoints within an epoch but for the newest `num_to_keep`.

        `with_epochs`: those at the end of an epoch count among the kept ones.
        """
        # On the main process only: another could see a checkpoint being deleted.
        counts = with_epochs and if_main_process()
        found = self.list_checkpoints() if counts else []
        epochs = sum(checkpoint.meta["end-of-epoch"] for checkpoint in found)
        self.delete_checkpoints(
            num_to_keep=max(num_to_keep - epochs, 0),
            ckpt_predicate=lambda checkpoint: not checkpoint.meta["end-of-epoch"],
        )

    def delete_epochs(self, num_to_keep: int, every: int, best: str | None) -> None:
        """Delete all but the newest, the best and those of every n-th epoch.

        Kept are the `num_to_keep` newest, as many with the highest value of the metric
        `best`, and those of epochs that are a multiple of `every` (0: none).
        """

        def removable(checkpoint: Checkpoint) -> bool:
            """Return whether the epoch is not one of every n-th."""
            epoch = checkpoint.meta.get("epoch")
            return not (every and epoch and epoch % every == 0)

        self.delete_checkpoints(
            num_to_keep=num_to_keep,
            max_keys=[best] if best else None,
            ckpt_predicate=removable,
        )

    @contextmanager
    def _temporary_folder(self) -> Iterator[None]:
        """Let SpeechBrain write into a temporary folder inside its own."""
        folder = self.checkpoints_dir
        self.checkpoints_dir = folder / f"{PARTIAL}save"
        try:
            yield
        finally:
            self.checkpoints_dir = folder

    def _publish(self, saved: Checkpoint, verbosity: int) -> Checkpoint:
        """Give a complete checkpoint its final path."""
        final = self.checkpoints_dir / saved.path.name
        checksums = {path.name: sha256_file(path) for path in saved.path.iterdir()}
        write_json(saved.path / CHECKSUMS, checksums)
        # Without this a power failure may leave the name without the content.
        for path in (*saved.path.iterdir(), saved.path):
            sync_to_disk(path)
        os.rename(saved.path, final)
        sync_to_disk(final.parent)
        self._remove_partials(ignore_errors=True)
        logger.log(verbosity, "Saved checkpoint %s", final)
        files = {key: final / Path(p).name for key, p in saved.paramfiles.items()}
        return Checkpoint(final, saved.meta, files)

    def _write_failure(self, error: Exception) -> str:
        """Return a message about a failed write, and remove what it left."""
        self._remove_partials(ignore_errors=True)
        newest = self.find_checkpoint()
        left = f"{newest.path} is complete" if newest else "there is no earlier one"
        reason = str(error).strip().splitlines()[0]
        if "inline_container" in reason:  # torch's source file, where it counts bytes
            reason = "a file could be written in part only"
        return (
            f"{self.checkpoints_dir}: cannot write the checkpoint: {reason} ({left}; "
            "free some disk space or fix the disk, then re-run the same command to "
            "resume)"
        )

    def _new_name(self) -> str:
        """Return a name that no checkpoint has: the time and a number."""
        stamp, number = time.strftime("%Y-%m-%d+%H-%M-%S"), 0
        while (self.checkpoints_dir / f"{CKPT_PREFIX}+{stamp}+{number:02d}").exists():
            number += 1
        return f"{stamp}+{number:02d}"

    def _timestamp(self) -> float:
        """Return the time, but later than that of every checkpoint.

        The newest is found by its time, and the clocks of machines may differ.
        """
        newest = self.find_checkpoint()
        return max(time.time(), newest.meta["unixtime"] + 1e-3 if newest else 0)

    def _delete(self, checkpoint: Checkpoint, verbosity: int) -> None:
        """Rename a checkpoint, then delete its files: it never appears incomplete."""
        partial = checkpoint.path.with_name(PARTIAL + checkpoint.path.name)
        os.rename(checkpoint.path, partial)
        _remove(partial)
        logger.log(verbosity, "Deleted checkpoint %s", checkpoint.path)

    def _remove_partials(self, ignore_errors: bool = False) -> None:
        """Remove what interrupted or failed writes and deletions have left."""
        for folder in Path(self.checkpoints_dir).glob(f"{PARTIAL}*"):
            _remove(folder, ignore_errors)


def _remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a folder; of a link, only the link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors)


def _wait_for(path: Path) -> None:
    """Wait until a file that another machine has written is visible here."""
    deadline = time.monotonic() + (LAG if world_size() > 1 else 0)
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
