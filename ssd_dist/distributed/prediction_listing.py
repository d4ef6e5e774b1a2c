"""From what was typed to the pictures it means: files, folders, patterns and videos, lazily.

A folder's entries are taken as the file system hands them out, and nothing is kept: of a million
files there is one name at a time in memory. Their order is the record's concern.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ssd_dist.data.pictures import SUFFIXES
from ssd_dist.data.problems import printable
from ssd_dist.data.video import VIDEO_SUFFIXES, frame_times, is_video

PICTURE = -1
"""The `time` of a picture file."""
MISNAMED = -2
"""The `time` of a file whose path is not UTF-8: it can be neither handed on nor written down."""
_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """A picture file, or a frame of a video."""

    name: str
    """Path below the folder that was given, without suffix."""
    path: str
    """Absolute; of a `MISNAMED` file as it can be shown."""
    time: int
    """Of a frame, in its stream's units; `PICTURE` or `MISNAMED` for a file."""


def list_sources(path: str, leave_out: Path) -> Iterator[Source]:
    """The pictures that one argument means.

    Args:
        path: a file, of whatever suffix; a folder, of which all pictures and videos are taken, down
            to its last subfolder; or a pattern with `*`, `?`, `[…]` and, for any number of folders,
            `**`, of which the files that match are taken. Hidden files and folders are passed over.
        leave_out: a folder that nothing is taken from: where the results go.

    Raises FileNotFoundError if there is no such file and no file matches; ValueError for a video
    that can't be read.
    """
    given = Path(path).expanduser().absolute()
    if given.is_file():
        folder = given.parent.resolve()  # without `..`; a link to a file keeps its own name
        yield from _sources(folder / given.name, folder)
        return
    if given.is_dir():
        given = given.resolve()
        for file in _files_below(given, leave_out):
            if file.name.lower().endswith((*SUFFIXES, *VIDEO_SUFFIXES)):
                yield from _sources(file, given)
        return
    base, parts = _split_pattern(given)
    base, found = base.resolve(), False
    for file in _matches(base, parts, leave_out):
        found = True
        yield from _sources(file, base)
    if not found:
        problem = "no file matches" if parts else "does not exist: give a file, folder or pattern"
        raise FileNotFoundError(f"{path}: {problem}")


def _sources(file: Path, base: Path) -> Iterator[Source]:
    name = file.relative_to(base).with_suffix("").as_posix()
    try:
        str(file).encode()
    except UnicodeEncodeError:
        yield Source(printable(name), printable(str(file)), MISNAMED)
        return
    if not is_video(file):
        yield Source(name, str(file), PICTURE)
        return
    for time in frame_times(file):
        yield Source(name, str(file), time)


def _files_below(folder: Path, leave_out: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders; links to folders are not followed, as they may lead
    round in a circle."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_file():
                    yield folder / entry.name
            elif folder / entry.name != leave_out:
                yield from _files_below(folder / entry.name, leave_out)


def _split_pattern(path: Path) -> tuple[Path, Sequence[str]]:
    """The folder above the first part with a wild card, and that part with those below it."""
    for index, part in enumerate(path.parts):
        if _MAGIC & set(part):
            return Path(*path.parts[:index]), path.parts[index:]
    return path, ()


def _matches(folder: Path, parts: Sequence[str], leave_out: Path) -> Iterator[Path]:
    """Files below a folder whose path is matched part by part. (`glob` lists a folder at once.)"""
    if not parts or not folder.is_dir() or folder == leave_out:
        return
    first, *rest = parts
    if first == "**":
        yield from _matches(folder, rest or ["*"], leave_out)
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not first.startswith(".")
            below = folder / entry.name
            if first == "**":
                if entry.is_dir(follow_symlinks=False) and not hidden:
                    yield from _matches(below, parts, leave_out)
            elif not hidden and fnmatchcase(entry.name, first):
                if rest:
                    yield from _matches(below, rest, leave_out)
                elif entry.is_file():
                    yield below
