"""Files and folders that are there whole or not at all, also after the power was cut.

A name appears by a rename, which is atomic; what it names was synced before, and the rename itself
is synced afterwards: a file system may otherwise write the three in any order.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file, or a folder with all that it holds, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            sync(inside)
    _sync_one(path)


def rename(source: Path, target: Path) -> None:
    """Renames a file or folder that is synced, and waits until its new name is on the disk."""
    source.rename(target)
    _sync_one(target.parent)


def rename_to_new(source: Path, target: Path) -> None:
    """Renames a synced file likewise, and raises FileExistsError if `target` exists: of several
    processes that do so at once, one succeeds. `source` may stay.

    On a disk without hard links there is a moment in which two can.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
    _sync_one(target.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target`, and puts it in `target`'s place at the end.

    After an exception `target` is as it was, and nothing is left beside it. A `target` that exists
    is replaced; between its going and the new one's coming there is a moment with neither.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        sync(folder)
        old = Path(scratch) / "old"
        if target.exists():
            target.rename(old)
        try:
            rename(folder, target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
