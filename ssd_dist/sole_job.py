"""One job at a time makes an experiment: two would write over each other."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ssd_dist.data.cache_folder import default_cache_dir


@contextlib.contextmanager
def sole_job(folder: Path) -> Iterator[None]:
    """Meanwhile no other job of this machine makes the experiment in `folder`, which need not be
    there yet. The lock lies in the cache's folder, for not every storage has locks, and goes with
    the process, however that ends.

    Raises FileExistsError if another job is at it.
    """
    place = default_cache_dir() / "jobs"
    place.mkdir(parents=True, exist_ok=True)
    # Machines may share the cache's folder, and have experiments of one path each.
    what = f"{platform.node()} {folder.resolve()}"
    name = hashlib.blake2b(what.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    lock = FileLock(place / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"experiment {folder} is being made by another job on this machine: wait for its end, "
            "or choose another --name"
        ) from None
    try:
        yield
    finally:
        lock.release()
