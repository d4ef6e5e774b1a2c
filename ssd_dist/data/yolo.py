"""Reads data sets in YOLO's format: data.yaml, and a label file for each picture.

A line is `class x y width height`: the number of a class from 0 and a box by its centre and its
sides, relative to the picture (0 to 1). In pixels its left edge is (x - width / 2) · the picture's
width, counted from the picture's edge, with no half pixel added. A picture without a label file has
no objects. The classes are those of data.yaml, sorted by name; its numbers hold in the label files
alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_dist.data.annotations import AnnotatedObject
from ssd_dist.data.file_split import ListedPicture, Listing
from ssd_dist.data.problems import ProblemList, quoted
from ssd_dist.data.root_files import MAX_TEXT_BYTES, read_lines, usable_file
from ssd_dist.data.shared_pictures import tell_shared
from ssd_dist.data.yolo_layout import (
    FILES,
    find_pictures,
    image_ids,
    is_root,
    label_path,
    read_root,
    split_names,
)

__all__ = ["LAYOUT", "is_root", "read", "split_names"]

LAYOUT = FILES[0]
_COLUMNS = ("x", "y", "width", "height")
_ROUNDING = 2e-6
"""The six decimals that tools write may put a box so far outside its picture."""


def read(
    root: Path,
    split: str,
    class_names: Sequence[str] | None,
    problems: ProblemList,
    *,
    with_pictures: bool,
) -> Listing:
    """The pictures that data.yaml names for a split, with their label files; see
    `file_split.Reader`. Boxes are relative, so pictures are needed whether asked for or not."""
    yolo = read_root(root, problems)
    if split not in yolo.sources:
        known = ", ".join(sorted(yolo.sources))
        raise ValueError(f"no split {split!r} in {yolo.file}; there are: {known}")
    # The other splits' pictures are wanted for comparison alone.
    pictures = {
        name: find_pictures(
            root, yolo, name, problems if name == split else ProblemList(strict=False)
        )
        for name in yolo.sources
    }
    if not pictures[split]:
        problems.add("empty_split", yolo.file, f"the split {split!r} has no picture")
    tell_shared(
        split,
        {name: {str(p): e for p, e in found.items()} for name, found in pictures.items()},
        problems,
    )
    ids = image_ids(pictures[split])
    labels = {picture: label_path(root, picture) for picture in pictures[split]}
    if labels and not any(path.exists() for path in labels.values()):
        first = next(iter(labels.values()))
        message = f"none of the split's {len(labels):,} pictures has a label file such as this"
        problems.add("missing_file", first, message)
    listed = []
    for picture, entry in pictures[split].items():
        where = f"line {entry.line} of {entry.file.name}" if entry.line else f"split {split!r}"
        listed.append(
            ListedPicture(
                image_id=ids[picture],
                path=picture,
                missing=f"no such picture, which {where} names",
                file=labels[picture],
                objects=_read_labels(labels[picture], root, yolo.names, problems),
            )
        )
    names = sorted(yolo.names.values()) if class_names is None else class_names
    return Listing(tuple(names), listed, relative=True)


def _read_labels(
    path: Path, root: Path, names: Mapping[int, str], problems: ProblemList
) -> tuple[AnnotatedObject, ...]:
    """The objects of a label file, boxes as relative corners; none where there is no file."""
    if not path.exists() and not path.is_symlink():
        return ()
    if not usable_file(path, root, problems, missing="a link to nothing", max_bytes=MAX_TEXT_BYTES):
        return ()
    objects = []
    for line, text in enumerate(read_lines(path, problems), start=1):
        columns = text.split()
        if columns and (found := _object(columns, path, line, names, problems)):
            objects.append(found)
    return tuple(objects)


def _object(
    columns: Sequence[str],
    path: Path,
    line: int,
    names: Mapping[int, str],
    problems: ProblemList,
) -> AnnotatedObject | None:
    """The object of a line; None, and told, if it is not one."""
    if len(columns) != 5:
        message = f"{len(columns)} columns, not 5 (class, x, y, width, height){_guess(columns)}"
        problems.add("bad_columns", path, message, line=line)
        return None
    text, *numbers = columns
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        message = f"the class is {quoted(text)}, not its number"
        problems.add("bad_columns", path, message, line=line)
        return None
    if int(text) not in names:
        known = f"0 to {max(names)}" if names else "none"
        message = f"class {int(text)} is not among the names of data.yaml, which are {known}"
        problems.add("unknown_class", path, message, line=line)
        return None
    values = []
    for name, number in zip(_COLUMNS, numbers, strict=True):
        value = _number(number)
        if wrong := _relative_problem(value):
            message = f"{name} is {quoted(number)}, {wrong}"
            problems.add("bad_coordinate", path, message, line=line)
            return None
        values.append(value)
    x, y, width, height = values
    box_xyxy = (
        _on_edge(x - width / 2),
        _on_edge(y - height / 2),
        _on_edge(x + width / 2),
        _on_edge(y + height / 2),
    )
    return AnnotatedObject(names[int(text)], box_xyxy, difficult=False, line=line)


def _guess(columns: Sequence[str]) -> str:
    if len(columns) == 6:
        return "; a sixth, such as a score, has no meaning in an annotation"
    if len(columns) >= 7 and len(columns) % 2 == 1:
        return ": polygons are not read, convert them to boxes"
    return ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _relative_problem(value: float) -> str | None:
    if not math.isfinite(value):
        return "not a number"
    if value > 1 + _ROUNDING:
        return "above 1: coordinates are relative to the picture, not in pixels"
    if value < -_ROUNDING:
        return "below 0"
    return None


def _on_edge(value: float) -> float:
    """A corner that is off an edge of the picture by rounding alone lies on it."""
    nearest = round(value)
    return float(nearest) if nearest in (0, 1) and abs(value - nearest) <= _ROUNDING else value
