"""A split as its files were read, kept in the cache's folder for the next process: parsing 100,000
annotations takes a minute, looking whether any of them has changed a second.

The name of what is stored stands for all that a reader goes by: the root's files, each with its
size, times of change and inode, what was asked for, and the version of the code. So it is found
only as long as nothing has changed, and what nobody finds any more goes as the cache's other files
do. What is cut short or damaged is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL

import ssd_dist
from ssd_dist.data.cache_folder import SPLIT_SUFFIX, default_cache_dir
from ssd_dist.data.file_split import FileSplit, PicturePaths
from ssd_dist.data.flat_annotations import FlatAnnotations

MIN_PICTURES = 2000
"""Of a split that is stored; a smaller one is as quickly read."""
SETTLED_S = 2.0
"""A file that changed less than this ago could change again within the same tick of its file
system's clock, which nothing would tell: then the split is not stored."""

_VERSION = 1
"""Part of the name: raise it when a reader would read the same files otherwise."""
_CHECKSUM_BYTES = 16
_ARRAYS = ("sizes", "starts", "boxes_xyxy", "labels", "difficult")


def stored_path(
    root: Path, layout: str, split: str, class_names: Sequence[str] | None
) -> Path | None:
    """Where a split of this root is stored in the root's present state; `layout` is its reader's.

    None if there is no telling: a file has only just changed, can't be looked at or is a link to
    nothing, or a folder is a link, whose files are not looked at.
    """
    names = None if class_names is None else tuple(class_names)
    asked = (os.path.realpath(root), layout, split, names)
    code = (_VERSION, ssd_dist.__version__, PIL.__version__)
    try:
        state = _state(root)
        folder = default_cache_dir()
    except (OSError, RuntimeError):  # the second where nobody has a home
        return None
    if state is None:
        return None
    digest = hashlib.blake2b(repr((asked, code, state)).encode(), digest_size=16)
    return folder / f"{digest.hexdigest()}{SPLIT_SUFFIX}"


def _state(root: Path) -> str | None:
    """Changes with every file and folder below the root, and with how the root is given, since
    problems name files by it. The time of the last change of an inode (ctime) gives away what sets
    back the other one."""
    settled_ns = int((time.time() - SETTLED_S) * 1e9)
    digest = hashlib.blake2b(digest_size=16)
    folders = [os.fspath(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            is_link = entry.is_symlink()
            if entry.is_dir():
                if is_link:
                    return None
                folders.append(entry.path)
            stat = entry.stat()  # of what a link leads to
            if stat.st_ctime_ns > settled_ns:
                return None
            target = os.path.realpath(entry.path) if is_link else ""
            times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
            line = f"{entry.path}\0{target}\0{stat.st_mode} {stat.st_size} {stat.st_ino} {times}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()


def load_split(path: Path, root: Path) -> FileSplit | None:
    """What `store_split` wrote for a root; None if there is nothing, or nothing whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, packed = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
    if checksum != _checksum(packed):
        return None
    with contextlib.suppress(OSError):  # another's folder; the cache keeps what was opened lately
        os.utime(path)
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS}
        head = json.loads(file["head"].tobytes())
    return FileSplit(
        name=head["name"],
        class_names=tuple(head["class_names"]),
        annotations=FlatAnnotations(head["image_ids"], **arrays),
        problems=tuple(head["problems"]),
        fingerprint=head["fingerprint"],
        picture_paths=PicturePaths(root, head["picture_names"]),
    )


def store_split(split: FileSplit, path: Path) -> None:
    """Writes a split, if the disk lets us: it costs time alone to do without."""
    head = {
        "name": split.name,
        "class_names": split.class_names,
        "image_ids": split.annotations.image_ids,
        "problems": split.problems,
        "fingerprint": split.fingerprint,
        "picture_names": split.picture_paths.names,
    }
    arrays = {name: getattr(split.annotations, name) for name in _ARRAYS}
    buffer = io.BytesIO()
    np.savez(buffer, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    packed = buffer.getvalue()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # With this suffix what a killed process leaves goes as the others do.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix="partial-", suffix=SPLIT_SUFFIX)
        partial_path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(packed) + packed)
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)


def _checksum(packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=_CHECKSUM_BYTES).digest()
