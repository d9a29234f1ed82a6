"""Several processes that train together: what they tell each other, how they end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from speechbrain.utils.distributed import ddp_init_group

from eat.training.settings import ExperimentError

NO_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def join_processes(run_opts: dict[str, Any]) -> None:
    """Connect the processes that a launcher has started; nothing without one.

    Raises
    ------
    ExperimentError
        If there is no GPU for each of them, or the launcher cannot restart them.
    """
    require_safe_restarts()
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExperimentError(
            f"--distributed_backend {run_opts['distributed_backend']}: {reason} (start "
            "as many processes as there are GPUs; on CPUs add --device cpu "
            "--distributed_backend gloo)"
        ) from None


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


def any_process(flag: bool, device: str | torch.device) -> bool:
    """Whether it is true in any process; all must ask, of their own device."""
    if world_size() == 1:
        return flag
    told = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)


def of_all_processes(mine: Any) -> list[Any]:
    """What each process has, in order of rank; all must ask."""
    if world_size() == 1:
        return [mine]
    parts = [None] * world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def in_turn(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The whole of which each process has taken every n-th item, in its order."""
    whole = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def is_lost_connection(error: Exception) -> bool:
    """Whether another process has gone: the error of those that still wait for it."""
    return world_size() > 1 and (
        isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
    )


def leave_together() -> None:
    """End the processes' connection in order.

    One that just exits may tear it from under another, which then aborts.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
