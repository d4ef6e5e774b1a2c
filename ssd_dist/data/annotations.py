"""From the objects of an annotation file to an `Annotation`: what every reader does the same way.

A reader of another format gives its objects as :class:`AnnotatedObject` and gets the same rules
for boxes and classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd_dist.data.problems import ProblemList, is_control, quoted
from ssd_dist.structures import Annotation

MAX_OBJECTS = 1000
"""Of one picture in training. Matching gives each object one of 8,732 priors of its own in 0.02 s
for 100 objects, 0.05 s for 400 and 0.1 s for 1,000, on one thread; if all lie in one place, in
0.07, 0.5 and 2 s. On a GPU their IoU with all priors is held at once."""

MAX_COORDINATE = 1e9
"""In pixels; what is larger is no coordinate, and its area would not be finite in float32."""

MAX_CLASS_NAME = 200
"""In characters."""

_MOST_CLASSES = 20
"""Shown in a message."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """An object as it stands in an annotation file."""

    class_name: str
    """Without `class_name_problem`."""
    box_xyxy: Box
    """In pixels, without `coordinate_problem`; whether it has an area and lies in the picture is
    not looked at."""
    difficult: bool
    line: int | None = None
    """Where it begins in the file, from 1."""
    place: str | None = None
    """In a JSON file, such as `annotations[17]`."""


def class_name_problem(name: str) -> str | None:
    """What is wrong with a class name, in words that follow "an object"; None if nothing is.

    Markup is legal: whatever shows a name escapes it. Control characters are not, since names go to
    terminals and into the names of curves.
    """
    if not name:
        return "has no name"
    if len(name) > MAX_CLASS_NAME:
        return f"has a name of {len(name)} characters, more than {MAX_CLASS_NAME}"
    if any(map(is_control, name)):
        return f"has the name {quoted(name)}, with characters that can't be shown"
    return None


def coordinate_problem(value: float) -> str | None:
    """What is wrong with a coordinate, in words that follow its value; None if nothing is."""
    if not math.isfinite(value):
        return "not a number"
    return None if abs(value) <= MAX_COORDINATE else "not a number of pixels"


def make_annotation(
    image_id: str,
    size: tuple[int, int],
    objects: Sequence[AnnotatedObject],
    file: Path,
    label_of: Mapping[str, int],
    problems: ProblemList,
    *,
    clip: bool,
) -> Annotation:
    """The annotation of a picture.

    Args:
        image_id: its name, unique in the split.
        size: its (width, height) in pixels; 0 where it is not known.
        objects: what the file has of it, in its order.
        file: named in problems.
        label_of: class name → label, 1…C.
        problems: told are boxes without area (dropped), objects that stand twice, classes that are
            not known (refused), and with `clip` also boxes that leave the picture.
        clip: for training: boxes are clipped to the picture and float32, and more than
            `MAX_OBJECTS` are refused. False, for evaluation: boxes stay as they stand, in float64.

    Raises DataError as `problems` does.
    """
    if clip and len(objects) > MAX_OBJECTS:
        problems.add(
            "too_many_objects",
            file,
            f"{len(objects):,} objects, more than the {MAX_OBJECTS:,} that a picture may have in "
            "training; cut it into tiles",
        )
    boxes, labels, difficult = [], [], []
    lines: dict[tuple[str, Box], int | None] = {}
    for found in objects:
        if found.class_name not in label_of:
            known = ", ".join(list(label_of)[:_MOST_CLASSES]) + ", …" * (
                len(label_of) > _MOST_CLASSES
            )
            message = f"{_place(found)}unknown class {quoted(found.class_name)}; known are: {known}"
            problems.add("unknown_class", file, message, line=found.line, place=found.place)
            continue
        box_xyxy = _usable_box(found, size if clip else None, file, problems)
        if box_xyxy is None:
            continue
        key = (found.class_name, found.box_xyxy)
        if key in lines:
            first = f", as in line {lines[key]}" if lines[key] is not None else ""
            message = f"{_shown(found)} stands here again{first}: it counts as another object"
            problems.add("repeated_object", file, message, line=found.line, place=found.place)
        lines.setdefault(key, found.line)
        boxes.append(box_xyxy)
        labels.append(label_of[found.class_name])
        difficult.append(found.difficult)
    return Annotation(
        image_id=image_id,
        width=size[0],
        height=size[1],
        boxes_xyxy=np.array(boxes, np.float32 if clip else np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=bool),
    )


def _usable_box(
    found: AnnotatedObject, size: tuple[int, int] | None, file: Path, problems: ProblemList
) -> Box | None:
    """The box, clipped to a picture of this (width, height) if one is given; None, and told, if
    nothing is left of it."""

    def tell(kind: str, what_is_done: str) -> None:
        message = f"{_shown(found)} {what_is_done}"
        problems.add(kind, file, message, line=found.line, place=found.place)

    x1, y1, x2, y2 = found.box_xyxy
    if x1 > x2 or y1 > y2:
        tell("box_swapped", "dropped: its corners are swapped")
        return None
    if x1 == x2 or y1 == y2:
        tell("box_without_area", "dropped: no area")
        return None
    if size is None:
        return found.box_xyxy
    width, height = size
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    # As float32 it must still have an area.
    left, top, right, bottom = np.array(clipped, np.float32).tolist()
    if left >= right or top >= bottom:
        tell("box_outside", f"dropped: no area inside the {width}x{height} picture")
        return None
    if clipped != found.box_xyxy:
        tell("box_clipped", f"clipped to the {width}x{height} picture")
    return clipped


def _shown(found: AnnotatedObject) -> str:
    x1, y1, x2, y2 = found.box_xyxy
    return f"{_place(found)}{quoted(found.class_name)} box ({x1:g}, {y1:g}, {x2:g}, {y2:g})"


def _place(found: AnnotatedObject) -> str:
    return "" if found.place is None else f"{found.place}: "
