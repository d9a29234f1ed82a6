"""Connecting the processes that a launcher has started."""

from __future__ import annotations

from typing import Any

from speechbrain.utils.distributed import ddp_init_group

from eat.errors import ExperimentError
from eat.utils.distributed import require_safe_restarts


def init_process_group(run_opts: dict[str, Any]) -> None:
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
