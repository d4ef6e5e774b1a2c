"""One file a node with the pictures of a split, decoded and shrunk, mapped into memory.

Decoding a JPEG costs more than everything else that happens to a picture before the network. So it
is done once: all workers, trials and loader processes of a node share the pages of one file, and
the operating system keeps in memory what fits. Pictures lie one behind the other as (h, w, 3)
bytes; where each one begins follows from the annotations alone, so the file needs no index, and its
length says whether it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ssd_dist.data.cache_folder import (
    PICTURES_SUFFIX,
    default_cache_dir,
    evict,
    limit_bytes,
    mark_in_use,
)
from ssd_dist.structures import Split

T = TypeVar("T")

_VERSION = 2
"""Part of the file's name: raise it when the bytes of a picture would come out differently."""
_PICTURES_AT_ONCE = 32


class ImageCache:
    """The decoded pictures of a split, in its order. Pickles as a path, not as pixels."""

    def __init__(self, path: Path, sizes: list[tuple[int, int]]) -> None:
        """Maps `path`, which holds pictures of these (width, height) one behind the other.

        Raises FileNotFoundError if there is no such file, ValueError if it is not that long.
        """
        self.path = path
        self._sizes = sizes
        areas = np.array([width * height for width, height in sizes], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(3 * areas)])
        found, expected = path.stat().st_size, int(self._starts[-1])
        if found != expected:
            raise ValueError(f"{path}: {found} bytes, not {expected}; delete it")
        self._bytes = torch.frombuffer(_mapped(path), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._sizes)

    def image(self, index: int) -> Tensor:
        """Picture `index`: (3, h, w) uint8, RGB, a view of the file with strides of (h, w, 3)."""
        width, height = self._sizes[index]
        start = int(self._starts[index])
        pixels = self._bytes[start : start + 3 * width * height]
        return pixels.view(height, width, 3).permute(2, 0, 1)

    def __reduce__(self) -> tuple[type[ImageCache], tuple[Path, list[tuple[int, int]]]]:
        return ImageCache, (self.path, self._sizes)


def _mapped(path: Path) -> mmap.mmap:
    """A file as memory. Copy-on-write: torch wants memory it may write to, and the file stays as it
    is. No memory is set aside for what might be written, since nothing is: Linux would refuse a
    file that is larger than all it has.

    Marked as in use for as long as the memory lives, here and in processes forked from this one:
    it keeps a duplicate of the file's descriptor, and so the lock. Raises FileNotFoundError if the
    file is deleted, before or meanwhile.
    """
    with path.open("rb") as file:
        mark_in_use(file)
        if sys.platform != "linux":
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        no_reserve = 0x4000  # MAP_NORESERVE, which `mmap` has from Python 3.14 on
        flags, prot = mmap.MAP_PRIVATE | no_reserve, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=prot)


def open_cache(split: Split, max_side: int, cache_dir: Path | None = None) -> ImageCache:
    """Opens the cache of a split's pictures, and builds it first where there is none yet.

    Several processes may call this at once: one builds, the others wait for it. A file is written
    under another name and renamed when whole, and belongs to one fingerprint of the split; least
    recently opened files that no process uses go when all of them exceed `$SSD_DIST_CACHE_GB` (20)
    gigabytes.

    Args:
        split: the split; its fingerprint, with `max_side`, names the file.
        max_side: longest side of a cached picture in pixels; larger ones are shrunk (antialiased),
            smaller ones are kept as they are.
        cache_dir: None: `$SSD_DIST_CACHE`, or else `~/.cache/ssd_dist`.

    Raises ValueError for a picture that can't be read or does not have its annotation's size, and
    OSError (ENOSPC) where the disk has no room for the file.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1 pixel, not {max_side}")
    folder = cache_dir or default_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [shrunk_size(one.width, one.height, max_side) for one in split.annotations]
    path = folder / f"{split.fingerprint}-{max_side}-v{_VERSION}{PICTURES_SUFFIX}"
    with FileLock(path.with_suffix(".lock")):
        cache = None
        while cache is None:
            if not _is_whole(path, sizes):
                _build(split, sizes, path)
            with contextlib.suppress(FileNotFoundError):  # another process has just evicted it
                cache = ImageCache(path, sizes)
        os.utime(path)
    evict(folder, keep=path, limit_bytes=limit_bytes())
    return cache


def shrunk_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) with the longest side at most `max_side`, never enlarged."""
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _is_whole(path: Path, sizes: list[tuple[int, int]]) -> bool:
    expected = sum(3 * width * height for width, height in sizes)
    return path.is_file() and path.stat().st_size == expected


def _build(split: Split, sizes: list[tuple[int, int]], path: Path) -> None:
    """Writes the file. The caller holds its lock, so remains of a killed builder may go."""
    for remains in path.parent.glob(f"{path.name}.*.partial"):
        remains.unlink(missing_ok=True)
    needed = sum(3 * width * height for width, height in sizes)
    if shutil.disk_usage(path.parent).free < needed:
        raise _disk_full(path, needed)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".partial")
    partial_path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_pictures(split, sizes, file)
        partial_path.replace(path)
    except OSError as error:
        raise _disk_full(path, needed) if error.errno == errno.ENOSPC else error from error
    finally:
        partial_path.unlink(missing_ok=True)


def _write_pictures(split: Split, sizes: list[tuple[int, int]], file: BinaryIO) -> None:
    read = partial(read_shrunk, split, sizes)
    for picture in in_order(read, len(sizes)):
        file.write(picture.tobytes())


def in_order(read: Callable[[int], T], count: int) -> Iterator[T]:
    """`read(0)`, `read(1)`, … of `count` pictures, in threads, a few pictures ahead: Pillow lets go
    of the interpreter lock while it decodes."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, count, _PICTURES_AT_ONCE):
            yield from threads.map(read, range(start, min(start + _PICTURES_AT_ONCE, count)))


def read_shrunk(
    split: Split, sizes: Mapping[int, tuple[int, int]] | Sequence[tuple[int, int]], index: int
) -> np.ndarray:
    """Picture `index` of a split, decoded and shrunk to the (width, height) `sizes[index]`:
    (h, w, 3) uint8. Raises ValueError if it does not have its annotation's size."""
    annotation = split.annotations[index]
    picture = split.read_image(index)
    if picture.shape != (annotation.height, annotation.width, 3):
        raise ValueError(
            f"picture {annotation.image_id!r} decodes to {picture.shape[1]}x{picture.shape[0]} "
            f"pixels, but its header says {annotation.width}x{annotation.height}"
        )
    return shrink(picture, sizes[index])


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at a smaller (width, height), antialiased; or as it is."""
    height, width, _ = picture.shape
    if size == (width, height):
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _disk_full(path: Path, needed: int) -> OSError:
    message = (
        f"{path.parent}: no room for {needed / 1e9:.2f} GB of decoded pictures; free some, or set "
        "SSD_DIST_CACHE to a folder on a larger disk"
    )
    return OSError(errno.ENOSPC, message)
