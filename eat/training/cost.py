"""The cost of a run: time, devices, memory."""

from __future__ import annotations

import platform
import sys

import torch


def training_cost(
    seconds: float,
    device_seconds: float,
    clips: int,
    device: str | torch.device,
    devices: int,
) -> dict[str, str | float]:
    """Return time, clips per second, devices, and the peak memory in MiB.

    Parameters
    ----------
    seconds
        Time spent in training.
    device_seconds
        The same, summed over devices, whose number may have changed.
    clips
        Clips seen in that time, on all devices.
    device
        Device of this process; the memory is that of this device, or process.
    devices
        Current number of devices.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        name = torch.cuda.get_device_name(device)
        peak = torch.cuda.max_memory_allocated(device)
    else:
        name, peak = f"CPU {platform.machine()}", _peak_memory()
    return {
        "device": name,
        "devices": devices,
        "hours": seconds / 3600,
        "device_hours": device_seconds / 3600,
        "clips_per_second": clips / seconds,
        "peak_memory_mb": peak // 2**20,
    }


def _peak_memory() -> int:
    """Return the peak memory of this process in bytes; 0 on Windows, which has none."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
