"""How batches get from a data worker to training: in shared memory that is reused.

Making shared memory for every batch costs more than reading the clips: each page of it
has to be found and zeroed for the worker, and mapped in training. So a worker keeps the
buffers of its batches; one is free again when training has dropped its batch.

A batch in shared memory that has no room for it would be lost without an error, and
training would wait for it. Docker gives a container 64 MB, two of the paper's batches.
Then a batch is sent by value, through a pipe.
"""

from __future__ import annotations

import logging
import math
import os
import weakref
from multiprocessing import active_children
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)

FOLDER = "/dev/shm"
RESERVE = 2**28  # bytes, for others such as NCCL; at most a quarter of the whole
# The beginning of a buffer, in bytes, and flags in it.
_HEADER, _IN_USE, _SENT = 64, 0, 1

# Buffers by number, of this data worker.
_own: list[Tensor] = []
# Buffers of data workers that this process has received, by process id and number.
_received: dict[tuple[int, int], Tensor] = {}
_warned = False


class Shared(NamedTuple):
    """A batch in a buffer of a data worker; with the buffer itself, if it is new."""

    worker: int  # process id
    number: int
    shape: torch.Size
    buffer: Tensor | None


def has_room(num_bytes: int) -> bool:
    """Return whether shared memory has room for so much, and a reserve for others."""
    try:
        status = os.statvfs(FOLDER)
    except (AttributeError, OSError):  # not Linux: no such folder, or no such function
        return True
    total, free = (n * status.f_frsize for n in (status.f_blocks, status.f_bavail))
    return num_bytes <= free - min(total // 4, RESERVE)


def empty(*shape: int) -> Tensor:
    """Return a float32 tensor for a batch, in a data worker in shared memory.

    There it has to be sent with `to_shared`, or its buffer is never free again. Without
    room in shared memory, it is an ordinary tensor.
    """
    size = _HEADER + 4 * math.prod(shape)
    buffer = None if get_worker_info() is None else _free_buffer(size)
    if buffer is None:
        return torch.empty(shape)
    buffer[_IN_USE] = 1
    return buffer[_HEADER:size].view(torch.float32).view(shape)


def _free_buffer(size: int) -> Tensor | None:
    """Return a free buffer of this worker, a new one if need be and there is room."""
    free = [number for number, buffer in enumerate(_own) if not buffer[_IN_USE]]
    for number in free:
        if len(_own[number]) >= size:
            return _own[number]
    try:
        if not has_room(size):
            return None
        buffer = torch.zeros(size, dtype=torch.uint8).share_memory_()
    except (RuntimeError, OSError):  # others were faster, or there is none
        return None
    if free:
        _own[free[0]] = buffer  # which was too small
    else:
        _own.append(buffer)
    return buffer


def to_shared(tensor: Tensor) -> Shared | np.ndarray:
    """Return what a data worker sends for a tensor that `empty` has made.

    An array, if it is not in shared memory, for which `from_shared` warns.
    """
    place = tensor.untyped_storage().data_ptr()
    for number, buffer in enumerate(_own):
        if buffer.data_ptr() == place:
            new = not buffer[_SENT]
            buffer[_SENT] = 1
            own = buffer if new else None
            return Shared(os.getpid(), number, tensor.shape, own)
    return tensor.numpy()


def from_shared(sent: Shared | np.ndarray | Tensor) -> Tensor:
    """Return the tensor; warn once if shared memory had no room for it."""
    global _warned
    if isinstance(sent, Tensor):  # not from a data worker
        return sent
    if isinstance(sent, Shared):
        return _tensor_in(_buffer_of(sent), sent.shape)
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


def _buffer_of(sent: Shared) -> Tensor:
    if sent.buffer is not None:
        drop_buffers()
        _received[sent.worker, sent.number] = sent.buffer
    return _received[sent.worker, sent.number]


def _tensor_in(buffer: Tensor, shape: torch.Size) -> Tensor:
    """Return the tensor in a buffer, which is free again when nobody refers to it."""
    end = _HEADER + 4 * shape.numel()
    array = buffer[_HEADER:end].view(torch.float32).view(shape).numpy()
    # The memory of a tensor ends with the array that it is made from, which, unlike
    # that memory, can say so.
    weakref.finalize(array, _release, buffer, os.getpid()).atexit = False
    return torch.from_numpy(array)


def _release(buffer: Tensor, process: int) -> None:
    if process == os.getpid():  # not in a child that was forked in the meantime
        buffer[_IN_USE] = 0


def drop_buffers() -> None:
    """Drop the buffers of data workers that have ended."""
    alive = {child.pid for child in active_children()}
    for worker, number in [*_received]:
        if worker not in alive:
            del _received[worker, number]
