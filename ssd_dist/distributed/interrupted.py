"""Where a training that was asked to stop leaves its state, and finds it again.

It goes straight into the storage and not through Ray, which may be about to end, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.distributed.buckets import (
    below,
    is_directory,
    local_copy,
    open_location,
    store,
)
from ssd_dist.distributed.mirror import RAY
from ssd_dist.interruption import TrainingInterruptedError

_FOLDER, _DESCRIPTION = "interrupted", "checkpoint.json"


def interrupted_location(storage: str, name: str) -> str:
    """Location of the state that the training `name` of an experiment in `storage` leaves."""
    return below(storage, RAY, _FOLDER, *name.split("/"))


def keep_interrupted(interrupted: TrainingInterruptedError, location: str, scratch: Path) -> None:
    """Stores the state of a training; `scratch` is a local folder. Raises OSError."""
    folder = scratch / _FOLDER
    interrupted.save(folder)
    store_checkpoint(folder, location)


def store_checkpoint(folder: Path, location: str) -> None:
    """Stores a checkpoint, whole or so that it is none. Raises OSError."""
    store(folder, location, last=_DESCRIPTION)


def discard_interrupted(location: str) -> None:
    """Deletes a state that the training has gone beyond; it does no harm if that fails."""
    with contextlib.suppress(OSError):
        filesystem, path = open_location(location)
        filesystem.delete_dir(path)


@contextlib.contextmanager
def newest(regular: Path | None, interrupted: str) -> Iterator[Path | None]:
    """Folder of the checkpoint to go on from: the state at the location `interrupted`, if there is
    one that goes on from `regular`, the last finished epoch that the driver knows of.

    One that is an epoch ahead follows an epoch of which the driver, about to end, was told too
    late: its result would be missing, and it may be the best. It is trained again, and that state
    discarded, as one behind `regular` is. One that is further ahead is all that is left of epochs
    whose checkpoints are gone.
    """
    with contextlib.ExitStack() as stack:
        chosen = regular
        with contextlib.suppress(OSError, ValueError):  # none, or one that was not stored whole
            if is_directory(interrupted):
                found = stack.enter_context(local_copy(interrupted))
                ahead = _epochs(found) - (0 if regular is None else _epochs(regular))
                if ahead == 0 or ahead > 1:
                    chosen = found
                else:
                    discard_interrupted(interrupted)
        yield chosen


def _epochs(folder: Path) -> int:
    return load_checkpoint(folder).epoch
