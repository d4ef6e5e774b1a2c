"""The folder for what can be made anew: where it is, and what goes when it grows too large."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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


def evict(folder: Path, keep: Path, limit_bytes: int) -> None:
    """Deletes the least recently opened files of a folder, all but `keep`, until those that are
    left have no more than `limit_bytes`; a process that has one mapped goes on reading it."""
    files = []
    for path in folder.iterdir():
        if path.suffix not in (PICTURES_SUFFIX, SPLIT_SUFFIX):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process may have evicted it
            stat = path.stat()
            files.append((path != keep, stat.st_mtime, stat.st_size, path))
    total = 0
    for not_kept, _, size, path in sorted(files, key=lambda file: (file[0], -file[1])):
        total += size
        if not_kept and total > limit_bytes:
            path.unlink(missing_ok=True)
