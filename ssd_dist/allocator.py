"""Whether freed memory stays with the process or goes back to the system.

The tensors of a training step are megabytes large, and the next step needs the same again. By
default the C library gives such memory back when it is freed, so that each step faults in its pages
anew: steps on a CPU then take 1.1 to 1.4 times as long, each another time.

A program that runs in a thread would have a heap of its own, of small pieces that come and go with
their contents. That, and pages of two megabytes in place of four kilobytes, which a network's
scattered reading is faster in, can only be asked for before a process begins: `ENVIRONMENT` asks.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"}
"""For processes that compute: a training step then takes 0.94 times as long, and so does a picture
in the service. What is not glibc, or is older than 2.35, takes no notice."""

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """From here on memory that is freed stays with the process, for its next step.

    Threads that have no heap of their own yet share the first one: a further thread's is too small
    for our tensors. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
        libc.mallopt(_ARENA_MAX, 1)


def return_memory() -> None:
    """Gives back to the system what an earlier trial in this process left: its models, and the
    freed memory that was kept (600 MB after a trial on BCCD)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
