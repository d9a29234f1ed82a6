"""How much memory there is for this process."""

from __future__ import annotations

import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2


def available_memory() -> int | None:
    """Return the bytes that are free or can be freed; None except on Linux.

    In a container, at most what is left of its limit.
    """
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB", MEMINFO.read_text(), re.M)
    except OSError:
        return None
    if found is None:
        return None
    free = 1024 * int(found[1])
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        # The kernel drops files from memory before it refuses any.
        cached = re.search(r"^file (\d+)", (CGROUP / "memory.stat").read_text(), re.M)
        return min(free, max(limit - used + (int(cached[1]) if cached else 0), 0))
    except (OSError, ValueError):  # no limit
        return free
