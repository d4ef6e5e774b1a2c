"""Unpacks a zip or tar that may come from anybody: plain files and folders, inside one folder, no
more bytes than such an archive can mean.

Links are refused wherever they lead, names that lead out of the folder, and archives that swell.
"""

from __future__ import annotations

import bz2
import calendar
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ssd_dist.data.problems import quoted

MAX_FILES = 5_000_000
MAX_RATIO = 200
"""Bytes that may come of one byte. Pictures hardly shrink; annotations by 10 to 50 times."""
_ALWAYS_ALLOWED = 2**30
_MAX_HEADER = 2**20
"""Longest that a tar may ask for at once outside of files: names, that is."""
_CHUNK = 2**18
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


class _ArchiveError(Exception):
    """What is wrong with an archive, in words that follow its name."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    changed: float
    """Seconds since 1970; a zip, which knows no time zone, is taken to be in UTC."""
    content: IO[bytes]


def unpack(archive: Path, folder: Path, source: str) -> None:
    """Unpacks a zip, or a tar as it is or shrunk by gzip, bzip2 or xz, into a folder that exists.

    Files have the time of change that the archive tells, so that they are the same wherever it is
    unpacked. What stands in the way of a file is overwritten.

    Args:
        archive: the file.
        folder: where to; after an error it may hold a part.
        source: what the archive is called in messages.

    Raises ValueError, in one sentence, for an archive that is broken or refused: a name that is
    absolute or has `..` in it, a link or a device, a password, more files than `MAX_FILES`, more
    bytes than `MAX_RATIO` times its own (a gigabyte is always allowed). OSError (ENOSPC) where
    there is no room for it.
    """
    try:
        with archive.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            members = _zip_members(file) if start in _ZIP_STARTS else _tar_members(file, start)
            _write(members, folder, archive.stat().st_size)
    except _ArchiveError as error:
        raise ValueError(f"{source}: {error}") from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        EOFError,
        NotImplementedError,  # a zip's rarer methods
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"{source}: not a whole zip or tar: {error}") from None


def _write(members: Iterator[_Member], folder: Path, packed: int) -> None:
    allowed = max(_ALWAYS_ALLOWED, MAX_RATIO * packed)
    free = shutil.disk_usage(folder).free
    total = 0
    for count, member in enumerate(members, start=1):
        total += member.size
        if count > MAX_FILES or total > allowed:
            raise _ArchiveError(
                f"swells to more than {allowed / 2**30:.0f} GiB or {MAX_FILES:,} files, far more "
                f"than its {packed / 2**20:,.1f} MiB can mean: refused"
            )
        if total > free:
            raise OSError(errno.ENOSPC, "no room to unpack it", str(folder))
        path = folder / _inside(member.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(member.content, file, _CHUNK)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise _ArchiveError(f"has {quoted(member.name)} as a file and as a folder") from None
        if path.stat().st_size != member.size:
            raise _ArchiveError(f"is cut short in {quoted(member.name)}")
        os.utime(path, (member.changed, member.changed))


def _inside(name: str) -> PurePosixPath:
    """Where in the folder a file of this name goes; the folder itself is `.`."""
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = bool(path.parts) and path.parts[0].endswith(":")
    if not name or path.is_absolute() or has_drive or ".." in path.parts or "\0" in name:
        raise _ArchiveError(f"has {quoted(name)} in it, which leads out of its folder: refused")
    return path


def _link(name: str) -> _ArchiveError:
    return _ArchiveError(
        f"has a link or a device in it, {quoted(name)}, and only plain files are unpacked; pack "
        "the files themselves (tar --dereference)"
    )


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _link(info.filename)
            if info.flag_bits & 1:
                raise _ArchiveError("has a password; unpack it yourself")
            if info.is_dir():
                _inside(info.filename)
                continue
            try:
                changed = float(calendar.timegm((*info.date_time, 0, 0, 0)))
            except ValueError:  # a month of 0
                changed = 0.0
            with archive.open(info) as content:
                yield _Member(info.filename, info.file_size, changed, content)


def _tar_members(file: IO[bytes], start: bytes) -> Iterator[_Member]:
    opener = next((opener for key, opener in _OPENERS.items() if start.startswith(key)), None)
    plain = opener(file) if opener is not None else file
    with tarfile.open(fileobj=_Bounded(plain), mode="r:") as archive:
        for info in archive:
            if info.isdir():
                _inside(info.name)
                continue
            if not info.isreg() or info.issparse():
                raise _link(info.name)
            content = archive.extractfile(info)
            assert content is not None
            yield _Member(info.name, info.size, max(0.0, float(info.mtime)), content)


class _Bounded(io.RawIOBase):
    """A tar's bytes. A header that says it is of gigabytes is not read into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise _ArchiveError("has a header of gigabytes: refused")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
