"""Reads annotations in COCO's JSON format: `images`, `annotations`, `categories`.

Labels 1…C follow the order of the category ids, which may have gaps (COCO's 80 go up to 90). A box
is x, y, width, height in pixels, 0-based. Crowd regions (`iscrowd`) stand for more objects than
they can be matched with, and become `difficult`. The pictures themselves are not opened.

What is wrong in the file is refused with its place in it, except for boxes without area, which are
dropped and told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import msgspec
import numpy as np

from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.typed_json import read_json
from ssd_dist.structures import Annotation

_EXPECTED = "COCO annotations: an object with the lists images, annotations and categories"


class _Image(msgspec.Struct, frozen=True, gc=False):
    id: int | str
    width: int | float | None = None
    height: int | float | None = None


class _Object(msgspec.Struct, frozen=True, gc=False):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int | bool = 0


class _Category(msgspec.Struct, frozen=True, gc=False):
    id: int
    name: str


class _File(msgspec.Struct, frozen=True, gc=False):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def read_coco(path: str | Path) -> GroundTruth:
    """Reads an annotation file such as `instances_val2017.json`.

    An image id is a whole number or text; as `Annotation.image_id` both are text ("397133").

    Raises FileNotFoundError if there is no such file; ValueError, naming the file and the place in
    it, if it is no JSON or of another shape, an id or a class name occurs twice, an annotation is
    of an image or a category that is not listed, a number is not finite, or there is no image or
    no category.
    """
    file = read_json(path, _File, _EXPECTED)
    image_ids = [str(image.id) for image in file.images]
    categories = sorted(file.categories, key=lambda category: category.id)
    if not image_ids or not categories:
        missing = "categories" if image_ids else "images"
        raise ValueError(f"{path}: the list {missing} is empty: there is nothing to evaluate")
    _check_unique(path, "images", "id", image_ids)
    _check_unique(path, "categories", "id", [category.id for category in file.categories])
    _check_unique(path, "categories", "name", [category.name for category in file.categories])

    images, labels, boxes_xywh, is_crowd = _columns(path, file, image_ids, categories)
    has_area = (boxes_xywh[:, 2:] > 0).all(axis=1)
    problems = [
        f"{path}: annotations[{i}] dropped: its bbox {boxes_xywh[i].tolist()} has no area"
        for i in np.flatnonzero(~has_area)
    ]
    # Image after image, and within one in the order of the file.
    kept = np.flatnonzero(has_area)
    kept = kept[np.argsort(images[kept], kind="stable")]
    boxes_xyxy = boxes_xywh[kept]
    boxes_xyxy[:, 2:] += boxes_xyxy[:, :2]
    bounds = np.searchsorted(images[kept], np.arange(len(image_ids) + 1)).tolist()
    annotations = tuple(
        Annotation(
            image_id=image_id,
            width=_whole_pixels(image.width),
            height=_whole_pixels(image.height),
            boxes_xyxy=boxes_xyxy[start:stop],
            labels=labels[kept[start:stop]],
            difficult=is_crowd[kept[start:stop]],
        )
        for image_id, image, (start, stop) in zip(
            image_ids, file.images, pairwise(bounds), strict=True
        )
    )
    return GroundTruth(
        source=str(path),
        annotations=annotations,
        class_names=tuple(category.name for category in categories),
        category_ids=tuple(category.id for category in categories),
        problems=tuple(problems),
    )


def _columns(
    path: str | Path, file: _File, image_ids: Sequence[str], categories: Sequence[_Category]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The N annotations as arrays, checked: (N,) position of the image, (N,) label, (N, 4) box as
    x, y, width, height, float64, and (N,) whether it is a crowd."""
    rows = file.annotations
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    label_of = {category.id: label for label, category in enumerate(categories, start=1)}
    images = np.fromiter((position.get(str(r.image_id), -1) for r in rows), np.int64, len(rows))
    labels = np.fromiter((label_of.get(r.category_id, 0) for r in rows), np.int64, len(rows))
    is_crowd = np.fromiter((bool(r.iscrowd) for r in rows), np.bool_, len(rows))
    numbers = chain.from_iterable(r.bbox for r in rows)
    boxes_xywh = np.fromiter(numbers, np.float64, 4 * len(rows)).reshape(-1, 4)
    if (bad := images < 0).any():
        i = int(bad.argmax())
        raise ValueError(
            f"{path}: annotations[{i}].image_id is {rows[i].image_id!r}, which is not the id of "
            "any of its images"
        )
    if (bad := labels == 0).any():
        i = int(bad.argmax())
        raise ValueError(
            f"{path}: annotations[{i}].category_id is {rows[i].category_id}, which is not the id "
            "of any of its categories"
        )
    if not (finite := np.isfinite(boxes_xywh)).all():
        i = int(finite.argmin()) // 4
        raise ValueError(
            f"{path}: annotations[{i}].bbox is {boxes_xywh[i].tolist()}; all four numbers must be "
            "finite"
        )
    return images, labels, boxes_xywh, is_crowd


def _whole_pixels(side: float | None) -> int:
    """0 for what is not known."""
    return int(side) if side is not None and math.isfinite(side) else 0


def _check_unique(path: str | Path, part: str, field: str, values: Iterable[int | str]) -> None:
    first: dict[int | str, int] = {}
    for i, value in enumerate(values):
        if first.setdefault(value, i) != i:
            raise ValueError(
                f"{path}: {part}[{first[value]}] and {part}[{i}] have the same {field} {value!r}"
            )
