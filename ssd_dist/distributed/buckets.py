"""Locations: a folder that all nodes see, or a URI in a bucket (s3://, gs://), as pyarrow sees it.

A URI may carry what its server needs, as in `s3://bucket/runs?endpoint_override=http://minio:9000`;
credentials come from where AWS's and Google's own programs take theirs, and never from the URI: it
is written into the study and into what a job prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pyarrow import fs

from ssd_dist.durable import new_folder

SCHEMES = ("s3", "gs")

_REQUEST = re.compile(r" \(Request ID.*?\)")
_CLOUD_ERROR = re.compile(r"(AWS Error .*|google::cloud::Status.*)", re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^/@]*:[^/@]*(?=@)")


class BucketError(OSError):
    """A bucket can't be read or written; the message says which and why."""


def is_uri(location: str) -> bool:
    """Whether a location is a URI and not a folder."""
    return "://" in location


def below(location: str, *names: str) -> str:
    """The location of something inside another: a URI keeps its options."""
    if not is_uri(location):
        return os.path.join(location, *names)  # noqa: PTH118
    parts = urlsplit(location)
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names])))


def located(path: str, storage: str) -> str:
    """The location of what Ray names by its `path` in the filesystem of `storage`.

    For a folder the two are the same; of a URI Ray names `bucket/folder`.
    """
    if not is_uri(storage):
        return path
    parts = urlsplit(storage)
    user, at, _ = parts.netloc.rpartition("@")
    bucket, _, inside = path.partition("/")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{bucket}", path=f"/{inside}"))


def shown_location(location: str) -> str:
    """A location as people may read it: without keys that somebody put into the URI."""
    return _SECRETS.sub("***", location)


def check_uri(location: str) -> None:
    """Raises ValueError, in one sentence, for a URI that is none of s3:// and gs://, or that holds
    keys."""
    parts = urlsplit(location)
    if ":" in parts.netloc.rpartition("@")[0]:
        raise ValueError(
            f"{shown_location(location)}: a URI is written down, so keys do not belong there: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile or the machine's role"
        )
    named = parts.scheme in SCHEMES and bool(parts.netloc.rpartition("@")[2])
    # The path becomes one on this machine, too; pyarrow takes no notice of what follows a #.
    if not named or parts.fragment or ".." in parts.path.split("/"):
        raise ValueError(
            f"{shown_location(location)}: give a folder, s3://bucket/folder or gs://bucket/folder"
        )


def open_location(location: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a location and its path there.

    Raises ValueError for a URI that can't be, OSError if its bucket can't be reached: S3 is asked
    for the bucket's region.
    """
    if not is_uri(location):
        return fs.LocalFileSystem(), location
    check_uri(location)
    filesystem, path = fs.FileSystem.from_uri(location)
    return filesystem, path


def is_directory(location: str) -> bool:
    """Whether something lies at a location. Raises OSError if that can't be asked."""
    filesystem, path = open_location(location)
    return bool(filesystem.get_file_info(path).type == fs.FileType.Directory)


def stays_below(name: str) -> bool:
    """Whether a relative name leads to a place below the folder it is relative to."""
    return not {"", ".", ".."} & set(name.split("/"))


def names_in(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """The names of all files in a bucket's folder, those of its subfolders too, relative to it;
    none if it is not there.

    A bucket allows any name, and this one may be a stranger's: raises BucketError for one that
    could lead out of the folder to which the files are copied.
    """
    selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)
    files = [entry.path for entry in filesystem.get_file_info(selector) if entry.is_file]
    names = [path.removeprefix(f"{folder.rstrip('/')}/") for path in files]
    for name, path in zip(names, files, strict=True):
        if not stays_below(name):
            raise BucketError(f"the object {path!r} can't be copied: its name is none of a file")
    return names


@contextlib.contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """A folder as a path of this machine: itself, or for a URI a copy that is gone afterwards.

    Raises FileNotFoundError if nothing is there, OSError if it can't be read; see `names_in`.
    """
    if not is_uri(location):
        yield Path(location)
        return
    filesystem, path = open_location(location)
    if filesystem.get_file_info(path).type != fs.FileType.Directory:
        raise FileNotFoundError(f"{shown_location(location)} is gone")
    with tempfile.TemporaryDirectory(prefix="ssd_dist_") as folder:
        for name in names_in(filesystem, path):
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.copy_files(f"{path}/{name}", str(target), source_filesystem=filesystem)
        yield Path(folder)


def store(folder: Path, location: str, last: str) -> None:
    """Copies a folder of files, without folders in it, to a location, whole or not at all: in a
    bucket the file `last` tells that the others are there. Raises OSError."""
    if not is_uri(location):
        with new_folder(Path(location)) as scratch:
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
        return
    filesystem, path = open_location(location)
    filesystem.create_dir(path)
    for file in sorted(folder.iterdir(), key=lambda file: file.name == last):
        fs.copy_files(str(file), f"{path}/{file.name}", destination_filesystem=filesystem)


def reason(error: BaseException) -> str:
    """The gist of what a filesystem answers, in one line: its errors tell the request as well."""
    number = getattr(error, "errno", None)
    if number is not None:
        return os.strerror(number)
    text = " ".join(str(error).split())
    found = _CLOUD_ERROR.search(text)
    return _REQUEST.sub("", found.group(1) if found else text) or type(error).__name__
