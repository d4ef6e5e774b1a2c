"""Reads detections in COCO's results format: a list of {image_id, category_id, bbox, score}.

`bbox` is x, y, width, height in the pixels of the ground truth. Everything is kept in float64, as
Python's numbers are, so that nothing is rounded on the way. K rows in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.typed_json import read_json
from ssd_dist.structures import Detections

_EXPECTED = (
    "COCO results: a list of objects with image_id, category_id (or category, a name), bbox "
    "[x, y, width, height] and score"
)
_NOT_SAID, _UNKNOWN = 0, -1
"""Labels of a row that names no class in this way, and of one that names a class that is not in the
ground truth."""


class _Row(msgspec.Struct, frozen=True, gc=False):
    image_id: int | str
    bbox: tuple[float, float, float, float]
    score: float
    category_id: int | None = None
    category: str | None = None


def read_detections(path: str | Path, ground_truth: GroundTruth) -> list[Detections]:
    """The detections of a results file, one entry for each picture that has some.

    Pictures come in the order in which the file first names them, and within a picture detections
    in that of the file: it is the order in which equal scores rank. An `image_id` may be a number
    or text: 12 and "12" are the same picture. An empty list is legal: nothing was detected.

    Raises FileNotFoundError if there is no such file; ValueError, naming the file and the row
    (counted from 0), if it is empty, no JSON or of another shape, a picture or a class is not in
    the ground truth, a row names no class or two, a score or a coordinate is not finite, or a
    width or height is negative.
    """
    rows = read_json(path, list[_Row], _EXPECTED)
    images = _images(path, rows, ground_truth)
    labels = _labels(path, rows, ground_truth)
    scores = np.fromiter((row.score for row in rows), np.float64, len(rows))
    if (bad := ~np.isfinite(scores)).any():
        i = int(bad.argmax())
        raise ValueError(f"{path}: [{i}].score is {_number(scores[i])}; a score must be finite")
    boxes_xyxy = _boxes_xyxy(path, rows)
    del rows  # a million of them take 400 MB

    _, first, which = np.unique(images, return_index=True, return_inverse=True)
    appearance = np.argsort(np.argsort(first))[which]
    order = np.argsort(appearance, kind="stable")
    bounds = np.searchsorted(appearance[order], np.arange(len(first) + 1)).tolist()
    return [
        Detections(
            image_id=ground_truth.annotations[images[order[start]]].image_id,
            boxes_xyxy=boxes_xyxy[order[start:stop]],
            labels=labels[order[start:stop]],
            scores=scores[order[start:stop]],
        )
        for start, stop in pairwise(bounds)
    ]


def _images(path: str | Path, rows: Sequence[_Row], ground_truth: GroundTruth) -> np.ndarray:
    """(K,) int64: position of each row's picture among the annotations."""
    position = {a.image_id: i for i, a in enumerate(ground_truth.annotations)}
    images = np.fromiter((position.get(str(row.image_id), -1) for row in rows), np.int64, len(rows))
    if (images < 0).any():
        i = int(np.argmax(images < 0))
        raise ValueError(
            f"{path}: [{i}].image_id is {rows[i].image_id!r}, which is not among the "
            f"{len(position)} pictures of {ground_truth.source}"
        )
    return images


def _labels(path: str | Path, rows: Sequence[_Row], ground_truth: GroundTruth) -> np.ndarray:
    """(K,) int64, 1…C: the class of each row, by its number or by its name."""
    labels = range(1, len(ground_truth.class_names) + 1)
    label_of_id = dict(zip(ground_truth.category_ids, labels, strict=True))
    label_of_name = dict(zip(ground_truth.class_names, labels, strict=True))
    by_id = _look_up(label_of_id, (row.category_id for row in rows), len(rows))
    by_name = _look_up(label_of_name, (row.category for row in rows), len(rows))
    for field, found in (("category_id", by_id), ("category", by_name)):
        if (bad := found == _UNKNOWN).any():
            i = int(bad.argmax())
            raise ValueError(
                f"{path}: [{i}].{field} is {getattr(rows[i], field)!r}, which is not a class of "
                f"{ground_truth.source}; its classes are {_shown_classes(ground_truth)}"
            )
    result: np.ndarray = np.maximum(by_id, by_name)
    if (bad := result == _NOT_SAID).any():
        i = int(bad.argmax())
        raise ValueError(f"{path}: [{i}] has neither category_id nor category; it needs one")
    if (bad := (by_id != by_name) & (by_id != _NOT_SAID) & (by_name != _NOT_SAID)).any():
        i = int(bad.argmax())
        raise ValueError(
            f"{path}: [{i}] has category_id {rows[i].category_id}, which is "
            f"{ground_truth.class_names[by_id[i] - 1]!r}, and category {rows[i].category!r}; "
            "give one of them"
        )
    return result


def _look_up(label_of: Mapping[Any, int], keys: Iterable[Any], count: int) -> np.ndarray:
    """(count,) int64: the label of each key; `_NOT_SAID` of None."""
    table = {None: _NOT_SAID, **label_of}
    return np.fromiter((table.get(key, _UNKNOWN) for key in keys), np.int64, count)


def _shown_classes(ground_truth: GroundTruth, most: int = 20) -> str:
    numbered = zip(ground_truth.category_ids, ground_truth.class_names, strict=True)
    shown = [f"{number} {name}" for number, name in numbered]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def _boxes_xyxy(path: str | Path, rows: Sequence[_Row]) -> np.ndarray:
    """(K, 4) float64."""
    boxes = np.fromiter(chain.from_iterable(row.bbox for row in rows), np.float64, 4 * len(rows))
    boxes = boxes.reshape(-1, 4)
    if (bad := ~np.isfinite(boxes)).any():
        i, side = divmod(int(bad.argmax()), 4)
        raise ValueError(
            f"{path}: [{i}].bbox[{side}] is {_number(boxes[i, side])}; it must be finite"
        )
    if (bad := boxes[:, 2:] < 0).any():
        i, side = divmod(int(bad.argmax()), 2)
        raise ValueError(
            f"{path}: [{i}].bbox has the negative {('width', 'height')[side]} "
            f"{boxes[i, 2 + side]:g}; a bbox is x, y, width, height"
        )
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _number(value: float) -> str:
    """NaN, Infinity or -Infinity, as they stand in the file."""
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
