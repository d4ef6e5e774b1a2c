"""Whether freed memory stays with the process or goes back to the system.

The tensors of a training step are megabytes large, and the next step needs the same again. By
default the C library gives such memory back when it is freed, so that each step faults in its pages
anew: steps on a CPU then take 1.1 to 1.4 times as long, each another time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

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
