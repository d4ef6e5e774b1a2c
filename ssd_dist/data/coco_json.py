"""One annotation file of COCO: `images`, `annotations`, `categories`, as arrays.

A box is x, y, width, height in pixels, 0-based. Category ids may have gaps (COCO's 80 go up to 90).
What is wrong in the file goes to a `ProblemList` with its place in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from ssd_dist.data.annotations import MAX_COORDINATE, class_name_problem
from ssd_dist.data.problems import DataError, ProblemList
from ssd_dist.data.typed_json import read_json

T = TypeVar("T", "CocoImage", "Category")

_EXPECTED = "COCO annotations: an object with the lists images, annotations and categories"


class CocoImage(msgspec.Struct, frozen=True, gc=False):
    """An entry of `images`."""

    id: int | str
    width: int | float | None = None
    height: int | float | None = None
    file_name: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in whole pixels; 0 for what is not known."""
        return _whole_pixels(self.width), _whole_pixels(self.height)


class Category(msgspec.Struct, frozen=True, gc=False):
    """An entry of `categories`."""

    id: int
    name: str


class _Object(msgspec.Struct, frozen=True, gc=False):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int | bool = 0


class _File(msgspec.Struct, frozen=True, gc=False):
    images: list[CocoImage]
    annotations: list[_Object]
    categories: list[Category]


class _Outline(msgspec.Struct, frozen=True, gc=False):
    images: list[CocoImage]
    categories: list[Category]


Outline = tuple[Sequence[CocoImage], Sequence[Category]]


@dataclass(frozen=True, slots=True, eq=False)
class CocoFile:
    """What a file holds, without what is refused. Shapes: N annotations."""

    images: tuple[CocoImage, ...]
    image_positions: tuple[int, ...]
    """Of each of them in the file's list."""
    categories: tuple[Category, ...]
    """By their ids."""
    image_of: np.ndarray
    """(N,) int64: position in `images`."""
    labels: np.ndarray
    """(N,) int64: 1 + the position in `categories`."""
    boxes_xywh: np.ndarray
    """(N, 4) float64: as they stand, finite."""
    is_crowd: np.ndarray
    """(N,) bool: the box holds more objects than it could be matched with."""
    positions: np.ndarray
    """(N,) int64: position in the file's list."""


def read_coco_file(path: str | Path, problems: ProblemList) -> CocoFile:
    """Reads a file such as `instances_val2017.json`.

    Told to `problems`: a file that is no JSON or of another shape, an id or a class name that
    occurs twice, a class without a name, an annotation of an image or a category that is not
    listed, a number that is not finite, and a file without images or categories; all of it refused.

    Raises FileNotFoundError if there is no such file, DataError (a ValueError) as `problems` does.
    """
    try:
        file = read_json(path, _File, _EXPECTED)
    except DataError as error:
        problems.note(error.problem)
        file = _File(images=[], annotations=[], categories=[])
    else:
        if missing := [part for part in ("images", "categories") if not getattr(file, part)]:
            message = f"the list {missing[0]} is empty"
            problems.add("broken_annotation", path, message, place=missing[0])
    positions, images = _unique(path, "images", "id", file.images, problems)
    categories = _usable_categories(path, file.categories, problems)
    rows = file.annotations
    image_of, labels, boxes_xywh, is_crowd = _columns(rows, images, categories)
    refused = _refused_rows(path, rows, image_of, labels, boxes_xywh, problems)
    kept = np.flatnonzero(~refused)
    return CocoFile(
        images=tuple(images),
        image_positions=tuple(positions),
        categories=tuple(categories),
        image_of=image_of[kept],
        labels=labels[kept],
        boxes_xywh=boxes_xywh[kept],
        is_crowd=is_crowd[kept],
        positions=kept,
    )


def read_outline(path: Path, problems: ProblemList) -> Outline:
    """Images and categories alone, in a fraction of the time; empty, and told, if the file can't be
    read. What is wrong with single ones is for `read_coco_file` to tell."""
    try:
        outline = read_json(path, _Outline, _EXPECTED)
    except DataError as error:
        problems.note(error.problem)
        return (), ()
    return outline.images, outline.categories


def _columns(
    rows: Sequence[_Object], images: Sequence[CocoImage], categories: Sequence[Category]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The annotations as arrays: (N,) position of the image, -1 where unknown, (N,) label, 0 where
    unknown, (N, 4) box as x, y, width, height, float64, and (N,) whether it is a crowd."""
    position = {str(image.id): i for i, image in enumerate(images)}
    label_of = {category.id: label for label, category in enumerate(categories, start=1)}
    image_of = np.fromiter((position.get(str(r.image_id), -1) for r in rows), np.int64, len(rows))
    labels = np.fromiter((label_of.get(r.category_id, 0) for r in rows), np.int64, len(rows))
    is_crowd = np.fromiter((bool(r.iscrowd) for r in rows), np.bool_, len(rows))
    numbers = chain.from_iterable(r.bbox for r in rows)
    boxes_xywh = np.fromiter(numbers, np.float64, 4 * len(rows)).reshape(-1, 4)
    return image_of, labels, boxes_xywh, is_crowd


def _refused_rows(
    path: str | Path,
    rows: Sequence[_Object],
    image_of: np.ndarray,
    labels: np.ndarray,
    boxes_xywh: np.ndarray,
    problems: ProblemList,
) -> np.ndarray:
    """(N,) bool: the annotations that can't be used, each of which is told."""
    far = ~(np.abs(boxes_xywh) <= MAX_COORDINATE).all(axis=1)  # NaN among them
    refused: np.ndarray = (image_of < 0) | (labels == 0) | far
    for i in np.flatnonzero(refused).tolist():
        place, row = f"annotations[{i}]", rows[i]
        if image_of[i] < 0:
            message = (
                f"{place}.image_id is {row.image_id!r}, which is not the id of any of its images"
            )
            problems.add("missing_image", path, message, place=f"{place}.image_id")
        elif labels[i] == 0:
            message = (
                f"{place}.category_id is {row.category_id}, which is not the id of any of its "
                "categories"
            )
            problems.add("unknown_class", path, message, place=f"{place}.category_id")
        else:
            message = (
                f"{place}.bbox is {boxes_xywh[i].tolist()}; all four numbers must be finite, and "
                f"at most {MAX_COORDINATE:,.0f}"
            )
            problems.add("bad_coordinate", path, message, place=f"{place}.bbox")
    return refused


def _whole_pixels(side: float | None) -> int:
    return int(side) if side is not None and math.isfinite(side) else 0


def _usable_categories(
    path: str | Path, categories: Sequence[Category], problems: ProblemList
) -> list[Category]:
    """By their ids, those of an id and a name of their own that can be shown; others are told."""
    _, kept = _unique(path, "categories", "id", categories, problems)
    _, kept = _unique(path, "categories", "name", kept, problems)
    good = []
    for category in kept:
        if wrong := class_name_problem(category.name):
            message = f"the category of id {category.id} {wrong}"
            problems.add("bad_class_name", path, message, place="categories")
        else:
            good.append(category)
    return sorted(good, key=lambda category: category.id)


def _unique(
    path: str | Path, part: str, field: str, values: Sequence[T], problems: ProblemList
) -> tuple[list[int], list[T]]:
    """The first of each id or name, with their positions; the others are told. Ids are compared as
    text."""
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        entry = getattr(value, field)
        key = str(entry)
        if first.setdefault(key, i) == i:
            continue
        message = f"{part}[{first[key]}] and {part}[{i}] have the same {field} {entry!r}"
        problems.add("repeated_entry", path, message, place=f"{part}[{i}].{field}")
    return list(first.values()), [values[i] for i in first.values()]
