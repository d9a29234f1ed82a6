"""How tensors get from a data worker to training: by shared memory, or by value.

A batch in shared memory that has no room for it would be lost without an error, and
training would wait for it. Docker gives a container 64 MB, two of the paper's batches.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

FOLDER = "/dev/shm"
RESERVE = 2**28  # bytes, for others such as NCCL; at most a quarter of the whole

_warned = False


def has_room(num_bytes: int) -> bool:
    """Return whether shared memory has room for so much, and a reserve for others."""
    try:
        status = os.statvfs(FOLDER)
    except (AttributeError, OSError):  # not Linux: no such folder, or no such function
        return True
    total, free = (n * status.f_frsize for n in (status.f_blocks, status.f_bavail))
    return num_bytes <= free - min(total // 4, RESERVE)


def to_shared(tensor: Tensor) -> Tensor | np.ndarray:
    """Move a tensor to shared memory; return an array if there is no room for it.

    The array is sent through a pipe, for which `from_shared` warns.
    """
    if has_room(tensor.nbytes):
        try:
            return tensor.share_memory_()
        except (RuntimeError, OSError):  # others were faster, or there is none
            pass
    return tensor.numpy()


def from_shared(sent: Tensor | np.ndarray) -> Tensor:
    """Return the tensor; warn once if shared memory had no room for it."""
    global _warned
    if isinstance(sent, Tensor):
        return sent
    if not _warned:
        _warned = True
        logger.warning(
            "%s: no room for batches of %d MB, which are sent through pipes instead "
            "(slower; enlarge it, as with `docker run --shm-size 2g`, or lower "
            "--num_workers or --batch_size)",
            FOLDER,
            -(-sent.nbytes // 2**20),
        )
    return torch.from_numpy(sent)
