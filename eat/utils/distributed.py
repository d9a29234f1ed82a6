"""Communication between the processes of a run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from eat.errors import ExperimentError

NO_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def require_safe_restarts() -> None:
    """Raise `ExperimentError` under a launcher whose restarted processes would hang.

    If torchrun keeps one store for all restarts, restarted processes read the addresses
    of their predecessors in it (https://github.com/pytorch/pytorch/issues/135712).
    """
    one_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if one_store and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise ExperimentError(
            f"--max-restarts: torchrun's restarts hang without {NO_SHARED_STORE}=1 in "
            "its environment (export it, or omit --max-restarts)"
        )


def world_size() -> int:
    """Return the number of processes; 1 without a process group."""
    if _is_connected():
        return torch.distributed.get_world_size()
    return 1


def any_rank(*flags: Tensor | bool, device: str | torch.device) -> Tensor:
    """Return for each flag whether it is true on any rank, as 0.0 or 1.0 `[flags]`.

    Every rank must call this. It does not wait for the `device`, which is the rank's
    own: NCCL reduces tensors on GPUs only.
    """
    found = torch.stack(
        [
            flag.float()
            if isinstance(flag, Tensor)
            # A fill, not a copy from the host, which would wait.
            else torch.full((), float(flag), device=device)
            for flag in flags
        ]
    )
    if world_size() > 1:
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return found


def all_gather_objects(local: Any) -> list[Any]:
    """Return the objects of all ranks, in order of rank; every rank must call this."""
    if world_size() == 1:
        return [local]
    parts = [None] * world_size()
    torch.distributed.all_gather_object(parts, local)
    return parts


def interleave(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the items in their original order, dealt out to the ranks in turn."""
    items = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        items[rank :: len(parts)] = part
    return items


def is_connection_error(error: Exception) -> bool:
    """Return whether an error means that another rank has exited."""
    return world_size() > 1 and (
        isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
    )


@contextmanager
def connection_errors(before: Callable[[], None]) -> Iterator[None]:
    """Turn the error of a lost connection into one line.

    Calls `before` first, which may raise an error that says more. Raises
    `ExperimentError` if another rank has exited.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_connection_error(error):
            raise
        before()
        raise ExperimentError(
            "another rank exited: see its log (re-run the same command to resume "
            "from the last checkpoint)"
        ) from error


def shutdown() -> None:
    """Leave the process group once all ranks are here.

    A rank that simply exits may close connections that another still uses.
    """
    if _is_connected():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


def leave_at_exit() -> None:
    """End the threads of the process group before the interpreter ends.

    They run until the last reference to the group is gone, such as that of a model
    whose gradients were averaged, and may otherwise abort a process that exits, in
    order or after an error. NCCL could wait here for the others.
    """
    gc.collect()
    if _is_connected() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _is_connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
