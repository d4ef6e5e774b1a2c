"""Memory that a training step frees is there for the next one, until it is given back."""

import os
import platform
import subprocess
import sys

import pytest

_STEPS = """
import resource, torch
from ssd_dist.allocator import keep_freed_memory, return_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10 * 2**18) for _ in range(10)]  # 10 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def main():
    {keep}
    for _ in range(3):
        step()
    faults, held = step(), resident()
    return_memory()
    print(faults, held - resident())

main()
"""


def faults_and_returned(keep: str) -> tuple[int, int]:
    # A fixed threshold: glibc's own moves with what was freed before.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    command = [sys.executable, "-c", _STEPS.format(keep=keep)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    faults, returned = map(int, done.stdout.split())
    return faults, returned


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_and_can_be_given_back():
    pages = 100 * 2**20 // 4096
    usual, _ = faults_and_returned("pass")
    kept, returned = faults_and_returned("keep_freed_memory()")
    assert usual > pages / 2
    assert kept < pages / 20
    assert returned > 90 * 2**20
