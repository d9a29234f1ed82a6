"""Connect the processes that a launcher has started."""

from __future__ import annotations

import atexit

from speechbrain.utils.distributed import ddp_init_group
from speechbrain.utils.run_opts import RunOptions

from eat.errors import ExperimentError
from eat.utils.distributed import leave_at_exit, require_safe_restarts


def init_process_group(run_opts: RunOptions) -> None:
    """Connect the processes that a launcher has started; do nothing without one.

    Raises `ExperimentError` if there are fewer GPUs than processes.
    """
    require_safe_restarts()
    atexit.register(leave_at_exit)
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExperimentError(
            f"--distributed_backend {run_opts['distributed_backend']}: {reason} (start "
            "one process per GPU; on CPUs add --device cpu --distributed_backend gloo)"
        ) from None
