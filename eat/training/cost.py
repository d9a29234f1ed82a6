"""What a run costs: floating-point operations, time, memory."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def gflop(forward: Callable[[], object]) -> float:
    """Operations of a forward pass, a multiply-add counted as two.

    Matrix products and convolutions are counted. The backward pass takes twice as many
    (torch's counter is wrong there for grouped convolutions, so it is not asked).

    Parameters
    ----------
    forward
        The call to count.

    Returns
    -------
    float
        In 1e9 operations.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 1e9


def training_cost(
    seconds: float,
    device_seconds: float,
    clips: int,
    device: str | torch.device,
    devices: int,
) -> dict[str, str | float]:
    """What a training took: time, clips per second, devices, memory of this process.

    Parameters
    ----------
    seconds
        Time spent in training.
    device_seconds
        The same, summed over devices: their number may have changed.
    clips
        Clips seen in it, by all devices.
    device
        The device of this process.
    devices
        How many there are now.

    Returns
    -------
    dict
        ``peak_memory_mb`` is in MiB.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        name = torch.cuda.get_device_name(device)
        peak = torch.cuda.max_memory_allocated(device)
    else:
        name = f"CPU {platform.machine()}"
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "device": name,
        "devices": devices,
        "hours": seconds / 3600,
        "device_hours": device_seconds / 3600,
        "clips_per_second": clips / seconds,
        "peak_memory_mb": peak // 2**20,
    }
