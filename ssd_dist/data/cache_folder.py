"""The folder for what can be made anew: where it is, and what goes when it grows too large."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from functools import cache
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

PICTURES_SUFFIX = ".pictures"
SPLIT_SUFFIX = ".split"


def default_cache_dir() -> Path:
    """`$SSD_DIST_CACHE`, or else `~/.cache/ssd_dist`."""
    given = os.environ.get("SSD_DIST_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "ssd_dist"


def limit_bytes() -> int:
    """`$SSD_DIST_CACHE_GB` (20) gigabytes. Raises ValueError if that is no such number."""
    text = os.environ.get("SSD_DIST_CACHE_GB", "20")
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise ValueError(f"SSD_DIST_CACHE_GB must be a number of gigabytes, not {text!r}")
    return int(gigabytes * 1e9)


def mark_in_use(file: BinaryIO) -> None:
    """Keeps a file from being evicted until the last duplicate of its descriptor is closed, at the
    latest by the end of the processes that have one. Raises FileNotFoundError if it is deleted."""
    fcntl.flock(file, fcntl.LOCK_SH)
    if os.fstat(file.fileno()).st_nlink == 0:
        raise FileNotFoundError(f"{file.name} was evicted")


def evict(folder: Path, keep: Path, limit_bytes: int) -> None:
    """Deletes the least recently opened files of a folder, none that is in use nor `keep`, until
    those that are left have no more than `limit_bytes`. Warns, once, where they have more."""
    files = []
    for path in folder.iterdir():
        if path.suffix not in (PICTURES_SUFFIX, SPLIT_SUFFIX):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process may have evicted it
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total > limit_bytes and path != keep and _delete_unused(path):
            total -= size
    if total > limit_bytes:
        _warn_of_use(folder, limit_bytes)


def _delete_unused(path: Path) -> bool:
    """Deletes a file unless it is in use; whether it is gone."""
    try:
        with path.open("r+b") as file:  # NFS gives the lock only to who may write
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@cache
def _warn_of_use(folder: Path, limit_bytes: int) -> None:
    """Once in a process."""
    logger.warning(
        "%s: the files in use exceed SSD_DIST_CACHE_GB, which is %g: they stay while they are used",
        folder,
        limit_bytes / 1e9,
    )
