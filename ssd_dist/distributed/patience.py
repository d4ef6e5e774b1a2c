"""Waiting for a storage that does not answer: a file server restarts in a minute."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ssd_dist.distributed.buckets import is_uri, reason, shown_location

PATIENCE_S = 120.0
"""How long a storage that is gone or read-only is waited for."""
_PAUSE_S = 1.0
_MARK = "experiment.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_THERE = "Unable to set up cluster storage"
"""Of Ray, which looks for a file of its own before it writes."""

_Result = TypeVar("_Result")


class StorageLostError(OSError):
    """The storage could not be used for too long, or is full; the message says which and why."""


def patiently(
    action: Callable[[], _Result], storage: str, waiting: Callable[[], object] = lambda: None
) -> _Result:
    """Does what reads or writes an experiment's storage, again and again while it can't be used.

    Args:
        action: may be done in part and again.
        storage: the experiment's location.
        waiting: called each time that it is tried.

    Raises StorageLostError, in one sentence, after PATIENCE_S, or at once for a disk that is full;
    what `action` raises if it is not for the storage.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        waiting()
        try:
            _try_out(storage)
            return action()
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and _NOT_THERE not in str(error):
                raise
            if isinstance(error, StorageLostError) or is_full(error) or time.monotonic() > end:
                raise StorageLostError(
                    f"the storage {shown_location(storage)} can't be used from this machine: "
                    f"{reason(error)}"
                ) from None
        time.sleep(_PAUSE_S)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    full = "No space left on device", "disk is full"  # the latter is SQLite's
    return getattr(error, "errno", None) in _FULL or any(text in str(error) for text in full)


def _try_out(storage: str) -> None:
    """Raises OSError if the experiment is not there, or can't be written to: nothing is to be made
    in the place of a folder that is gone for a while."""
    if is_uri(storage):
        return  # its server is asked several times anyway
    (Path(storage) / _MARK).stat()
    with tempfile.TemporaryFile(dir=storage):
        pass
