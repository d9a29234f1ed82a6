"""Checkpoints that exist whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

logger = logging.getLogger(__name__)

PARTIAL = ".partial-"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, writing aside and renaming once complete.

    SpeechBrain writes the metadata first, so that a run killed while it saves leaves
    a folder which the next start picks and fails on. Here an unfinished folder has
    another name, is never picked, and goes when the next checkpoint is written.
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
        # SpeechBrain would announce the folder by its passing name.
        saved = super().save_checkpoint(meta or {}, end_of_epoch, name, logging.DEBUG)
        ddp_barrier()  # other ranks may write into the folder as well
        published = saved and self._publish(saved, verbosity)
        ddp_barrier()  # no rank lists the checkpoints before this one is there
        return published

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
        os.rename(saved.path, final)
        logger.log(verbosity, "Saved checkpoint %s", final)
        files = {key: final / Path(p).name for key, p in saved.paramfiles.items()}
        return Checkpoint(final, saved.meta, files)

    def _new_checkpoint_dirpath(self) -> Path:
        return _aside(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        return _aside(super()._custom_checkpoint_dirpath(name))

    def _remove_partials(self) -> None:
        for folder in Path(self.checkpoints_dir).glob(f"{PARTIAL}*"):
            shutil.rmtree(folder)


def _aside(path: Path) -> Path:
    return path.with_name(PARTIAL + path.name)
