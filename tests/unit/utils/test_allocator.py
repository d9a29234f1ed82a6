"""Freed tensors leave their memory to the next ones."""

import os
import subprocess
import sys

import pytest

from eat.utils.allocator import keep_freed_memory

# Faults of pages that the kernel had to clear while tensors of 64 MiB came and went.
PROGRAM = """
import resource, torch, eat.model
for _ in range(16):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment):
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(
        command, env=os.environ | environment, capture_output=True, check=True
    )
    return int(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc's allocator")
def test_the_memory_of_large_tensors_is_kept():
    assert faults() < 100
    assert faults(MALLOC_ARENA_MAX="4") > 1000  # the user's choice of options
