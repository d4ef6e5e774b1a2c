"""Where an experiment lies: in a folder, or in a bucket with a mirror of it here.

A job works in a folder: its files are renamed into place, and SQLite needs a real disk, which no
bucket offers. With `--storage s3://…` that folder is a mirror on the machine of the driver, and
what changes in it is copied into the bucket every few seconds and at the end. Ray's own files, all
checkpoints among them, are written by whichever node has them, and go to the bucket directly.

The bucket notes which mirror wrote to it last; a job that ends before it wrote anything puts back
what was noted before, as the one that is named there may be at work. To that one the bucket has
nothing to tell, even if its driver was killed before the last copy; any other one is made anew from
the bucket. So a search goes on with `--resume` on the same machine, and also on another after the
first is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from ssd_dist.data.cache_folder import default_cache_dir
from ssd_dist.distributed.buckets import (
    BucketError,
    below,
    check_uri,
    is_uri,
    names_in,
    open_location,
    reason,
    shown_location,
    stays_below,
)
from ssd_dist.experiment import BEST, storage_folder
from ssd_dist.terminal import shown

RAY = "ray"
"""Ray's own part of an experiment, which is not mirrored."""
PUSH_INTERVAL_S = 5.0
_WRITER = "mirror.id"
_SQLITE_TIMEOUT_S = 60.0
_IN_URI = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]+")
"""What a URI's path takes as it is: # and ? end it, and % stands for another character."""


@dataclass(frozen=True, slots=True)
class Place:
    """An experiment's place."""

    folder: Path
    """Absolute; of an experiment in a bucket its mirror on this machine."""
    bucket: str | None = None
    """URI of the experiment, if it lies in a bucket."""

    @property
    def location(self) -> str:
        """What every node can reach: the URI, or the folder."""
        return self.bucket or str(self.folder)

    @property
    def shown(self) -> str:
        """As a person would give it to a job."""
        return shown(self.folder) if self.bucket is None else shown_location(self.bucket)


def place_in(storage: str, name: str) -> Place:
    """The place of the experiment `name` in what `--storage` says. Raises ValueError for a URI that
    is none of s3:// and gs://, and for a name that can't be in one."""
    if not is_uri(storage):
        return place_at(str(Path(storage) / name))
    if not (_IN_URI.fullmatch(name) and stays_below(name)):
        raise ValueError(
            f"--name {name!r} can't be part of a bucket's URI: take letters of a to z, digits, - "
            "and _"
        )
    return place_at(below(storage, name))


def place_at(location: str) -> Place:
    """The place of an experiment whose folder or URI is known. Raises ValueError, see above."""
    if not is_uri(location):
        return Place(storage_folder(location))
    check_uri(location)
    parts = urlsplit(location)
    mirrors = default_cache_dir() / "buckets" / parts.scheme
    return Place(mirrors / parts.netloc.rpartition("@")[2] / parts.path.strip("/"), location)


@contextlib.contextmanager
def mirrored(place: Place, *, writes: bool = True) -> Iterator[None]:
    """Keeps an experiment's mirror meanwhile, up to date on entry; does nothing for a folder.

    Args:
        place: the experiment's.
        writes: whether this is the job that makes the experiment, and not one that adds to it: of
            such a one only the files that it makes or changes go to the bucket.

    Raises BucketError, in one sentence, if the bucket can't be read or written. If it is lost
    meanwhile, what it lacks lies in the mirror.
    """
    if place.bucket is None:
        yield
        return
    with _bucket_errors(place):
        mirror = _Mirror(place.folder, place.bucket)
        mirror.pull()
        if writes:
            mirror.claim()
    stop = threading.Event()
    pusher = threading.Thread(target=_push_until, args=(mirror, stop), daemon=True)
    pusher.start()
    try:
        yield
    except BaseException:
        stop.set()
        pusher.join()
        with contextlib.suppress(OSError, sqlite3.Error):
            mirror.push()
            mirror.release()
        raise
    stop.set()
    pusher.join()
    with _bucket_errors(place):
        mirror.push()


def pull(location: str) -> Path:
    """The folder of an experiment that is only to be read, made from its bucket where it lies in
    one. Raises BucketError or ValueError, see above."""
    place = place_at(location)
    with mirrored(place, writes=False):
        return place.folder


class _Mirror:
    """Copies between an experiment's folder and its bucket."""

    def __init__(self, folder: Path, bucket: str) -> None:
        self._folder = folder
        self._bucket, self._root = open_location(bucket)
        self._pushed: dict[Path, tuple[int, int]] = {}  # file → time of change, size
        self._found: str | None = None  # the bucket's note, on entry
        self._claimed = self._wrote = False

    def pull(self) -> None:
        """Makes the folder anew from the bucket, unless it was the last to write there."""
        self._found = self._read(_WRITER)
        if self._found is None or self._found != self._own_id():
            self._make_anew()
        self._pushed = {path: _stamp(path) for path in self._files()}

    def _make_anew(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull.", dir=self._folder.parent) as scratch:
            new = Path(scratch) / "new"
            found = self._download(new)
            if self._folder.exists():
                self._folder.rename(Path(scratch) / "old")
            if found:
                new.rename(self._folder)

    def claim(self) -> None:
        """Notes in the bucket that this folder writes to it now; also a test that it can."""
        if self._own_id() is not None:  # the last to write, but perhaps killed before it pushed
            self._pushed.clear()
        name = self._own_id() or uuid.uuid4().hex
        self._write(_WRITER, name.encode())
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f".{_WRITER}").write_text(name)
        self._claimed = True

    def push(self) -> None:
        """Copies what has changed; best.json last, so that what it names is there."""
        changed = [path for path in self._files() if self._pushed.get(path) != _stamp(path)]
        for path in sorted(changed, key=lambda path: (path.name == BEST, path)):
            self._wrote = True
            stamp = _stamp(path)
            self._write(path.relative_to(self._folder).as_posix(), _content(path))
            self._pushed[path] = stamp

    def release(self) -> None:
        """Puts back what was noted before if nothing came of the job."""
        own = self._own_id()
        if not self._claimed or self._wrote or self._found == own or self._read(_WRITER) != own:
            return
        if self._found is None:
            self._bucket.delete_file(f"{self._root}/{_WRITER}")
        else:
            self._write(_WRITER, self._found.encode())
        if not self._files():
            shutil.rmtree(self._folder)

    def _files(self) -> list[Path]:
        """The experiment's whole files: not Ray's, nor temporary ones, nor SQLite's journals."""
        return [
            path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
            and path.relative_to(self._folder).parts[0] != RAY
            and not any(part.startswith(".") for part in path.relative_to(self._folder).parts)
            and not path.name.endswith(("-journal", "-wal", "-shm"))
        ]

    def _own_id(self) -> str | None:
        file = self._folder / f".{_WRITER}"
        return file.read_text() if file.is_file() else None

    def _download(self, target: Path) -> bool:
        """Whether there was anything."""
        for name in names_in(self._bucket, self._root):
            if name == _WRITER:
                continue
            if name.startswith(f"{RAY}/"):  # that it is there tells that trials were started
                (target / RAY).mkdir(parents=True, exist_ok=True)
                continue
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(self._read_bytes(f"{self._root}/{name}"))
        return target.exists()

    def _read(self, name: str) -> str | None:
        path = f"{self._root}/{name}"
        if self._bucket.get_file_info(path).type == fs.FileType.NotFound:
            return None
        return self._read_bytes(path).decode()

    def _read_bytes(self, path: str) -> bytes:
        with self._bucket.open_input_stream(path) as stream:
            return bytes(stream.read())

    def _write(self, name: str, content: bytes) -> None:
        with self._bucket.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(content)


def _push_until(mirror: _Mirror, stop: threading.Event) -> None:
    while not stop.wait(PUSH_INTERVAL_S):
        # A bucket that does not answer now may answer later; the last push tells.
        with contextlib.suppress(OSError, sqlite3.Error):
            mirror.push()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _content(path: Path) -> bytes:
    """A file's bytes; of a database in use, those of a copy without half a transaction."""
    if path.suffix != ".db":
        return path.read_bytes()
    handle, copy = tempfile.mkstemp(suffix=".db")
    os.close(handle)
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=_SQLITE_TIMEOUT_S)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return Path(copy).read_bytes()
    finally:
        Path(copy).unlink()


@contextlib.contextmanager
def _bucket_errors(place: Place) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        kept = f"; what it lacks lies in {place.folder}" if place.folder.is_dir() else ""
        raise BucketError(
            f"the bucket {shown_location(place.location)} can't be used: {reason(error)}{kept}"
        ) from None
