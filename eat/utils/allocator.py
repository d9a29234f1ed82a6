"""Keep the memory of freed tensors in the process instead of returning it."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

# Parameters of mallopt(3) and their values.
_OPTIONS = {
    -4: 0,  # M_MMAP_MAX: no block is mapped on its own, and unmapped when freed
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: keep up to 2 GiB at the top of the heap
    -2: 2**26,  # M_TOP_PAD: let the heap grow by 64 MiB at a time
    -8: 1,  # M_ARENA_MAX: one heap for all threads; others cannot hold large blocks
}
# Who sets one of these has chosen an allocator or its options.
_CHOSEN_BY = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_ARENA_MAX")


@cache
def keep_freed_memory() -> bool:
    """Let glibc's allocator keep the memory of large tensors that were freed.

    By default glibc returns each block over 32 MiB to the kernel, which clears every
    page of the next one: from 4 clips on, most of the time between EAT's matrix
    products was spent so. The price is some 0.5 GB of memory.

    Returns
    -------
    bool
        Whether it was done; not where the C library is another one, or the user has
        chosen an allocator or its options in the environment.
    """
    if platform.libc_ver()[0] != "glibc" or any(map(os.environ.get, _CHOSEN_BY)):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(option, value) for option, value in _OPTIONS.items()]
    return all(done)
