"""Several processes that train together: what they tell each other, how they end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from eat.errors import ExperimentError

NO_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def require_safe_restarts() -> None:
    """Refuse a launcher whose restarted processes would wait for each other for good.

    Where it keeps one store over all restarts, they read addresses of their
    predecessors in it (https://github.com/pytorch/pytorch/issues/135712).

    Raises
    ------
    ExperimentError
        If this process was started by such a launcher.
    """
    one_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if one_store and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise ExperimentError(
            f"--max-restarts: torchrun's restarts hang without {NO_SHARED_STORE}=1 in "
            "its environment (export it, or leave --max-restarts out)"
        )


def world_size() -> int:
    """How many processes train together; 1 where there is no connection."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def any_rank(flag: bool, device: str | torch.device) -> bool:
    """Whether it is true in any process; all must ask, of their own device."""
    if world_size() == 1:
        return flag
    told = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)


def all_gather_objects(mine: Any) -> list[Any]:
    """What each process has, in order of rank; all must ask."""
    if world_size() == 1:
        return [mine]
    parts = [None] * world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def interleave(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The whole of which each process has taken every n-th item, in its order."""
    whole = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def is_connection_error(error: Exception) -> bool:
    """Whether another process has gone: the error of those that still wait for it."""
    return world_size() > 1 and (
        isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
    )


def shutdown() -> None:
    """End the processes' connection in order.

    One that just exits may tear it from under another, which then aborts.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
