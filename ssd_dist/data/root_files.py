"""The files of a data set's root: plain files, inside it, of a size that fits into memory.

A data set may come from anybody. Its lists and links must not make a training read what lies
elsewhere on the machine, wait at a pipe, or fill the memory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ssd_dist.data.problems import ProblemList

MAX_TEXT_BYTES = 64 * 2**20
"""Largest list or annotation file: about 200,000 objects in XML."""


def is_file_name(name: str) -> bool:
    """Whether `folder / name` lies in the folder: no path, neither absolute nor relative."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def usable_file(
    path: Path,
    root: Path,
    problems: ProblemList,
    *,
    missing: str,
    max_bytes: int | None = None,
) -> bool:
    """Whether a file of the data set may be read; if not, says why.

    Args:
        path: the file; its name has no path in it.
        root: the data set, which no link may leave.
        problems: what is wrong is told here.
        missing: what to say where there is no such file.
        max_bytes: how large it may be.

    Raises DataError as `problems` does.
    """
    try:
        real = os.path.realpath(path)
        status = Path(real).stat()
    except FileNotFoundError:
        problems.add("missing_file", path, missing)
        return False
    except OSError as error:
        problems.add("unusable_file", path, f"not readable: {error.strerror}")
        return False
    real_root = os.path.realpath(root)
    if os.path.commonpath([real, real_root]) != real_root:
        problems.add(
            "outside_root",
            path,
            f"leads to {real}, outside the data set's folder; put the file itself there",
        )
        return False
    if not stat.S_ISREG(status.st_mode):
        problems.add("unusable_file", path, "not a plain file, but a folder, a pipe or a device")
        return False
    if max_bytes is not None and status.st_size > max_bytes:
        problems.add(
            "unusable_file",
            path,
            f"{status.st_size / 2**20:.0f} MiB, more than the {max_bytes / 2**20:.0f} MiB that "
            "such a file may have",
        )
        return False
    return True


def read_bytes(path: Path, problems: ProblemList) -> bytes | None:
    """The content of a file that is usable; None, and told, if the system refuses to read it."""
    try:
        return path.read_bytes()
    except OSError as error:
        problems.add("unusable_file", path, f"not readable: {error.strerror}")
        return None


def read_lines(path: Path, problems: ProblemList) -> list[str]:
    """The lines of a text file that is usable, without their ends; none, and told, if it is not
    UTF-8."""
    content = read_bytes(path, problems) or b""
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add("broken_annotation", path, f"not readable as text: {error}", line=line)
        return []
