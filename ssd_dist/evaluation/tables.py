"""Annotations and detections of a whole split as flat arrays, checked.

Flat arrays are what the matching works on: one row an object or a detection, with the position of
its picture among the annotations. N objects and K detections over all pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_dist.structures import Annotation, Detections


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """All objects of a split, picture after picture, in the order of their files."""

    images: np.ndarray
    """(N,) int64: position of the picture among the annotations."""
    boxes_xyxy: np.ndarray
    """(N, 4) pixels, float32 or float64."""
    labels: np.ndarray
    """(N,) int64, 1…C."""
    difficult: np.ndarray
    """(N,) bool."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """All detections of a split, in the order in which they were given."""

    images: np.ndarray
    """(K,) int64: position of the picture among the annotations."""
    boxes_xyxy: np.ndarray
    """(K, 4) pixels, float32 or float64."""
    labels: np.ndarray
    """(K,) int64, 1…C."""
    scores: np.ndarray
    """(K,) float32 or float64, finite."""


def flatten_annotations(annotations: Sequence[Annotation], num_classes: int) -> ObjectTable:
    """One row an object.

    Raises ValueError naming the picture, and where it applies the row, if an image id occurs twice,
    a label is not in 1…C, or a box is not finite or has a negative side.
    """
    image_ids = [annotation.image_id for annotation in annotations]
    _check_unique(image_ids, "annotations")
    counts = [len(annotation.labels) for annotation in annotations]
    _check_lengths(image_ids, counts, "boxes_xyxy", [a.boxes_xyxy for a in annotations])
    _check_lengths(image_ids, counts, "difficult", [a.difficult for a in annotations])
    boxes_xyxy = _join([a.boxes_xyxy for a in annotations], np.float32, (4,))
    labels = _join([a.labels for a in annotations], np.int64)
    difficult = _join([a.difficult for a in annotations], np.bool_)
    _check_rows(image_ids, counts, "object", boxes_xyxy, labels, num_classes)
    return ObjectTable(
        images=np.repeat(np.arange(len(counts)), counts),
        boxes_xyxy=boxes_xyxy,
        labels=labels.astype(np.int64),
        difficult=difficult.astype(bool),
    )


def flatten_detections(
    detections: Sequence[Detections], annotations: Sequence[Annotation], num_classes: int
) -> DetectionTable:
    """One row a detection. Pictures without an entry in `detections` simply have none.

    Raises ValueError naming the picture, and where it applies the row, if an image id is not among
    the annotations or occurs twice, a label is not in 1…C, a box is not finite or has a negative
    side, or a score is not finite.
    """
    image_ids = [found.image_id for found in detections]
    _check_unique(image_ids, "detections")
    position = {annotation.image_id: i for i, annotation in enumerate(annotations)}
    unknown = next((image_id for image_id in image_ids if image_id not in position), None)
    if unknown is not None:
        raise ValueError(
            f"detections for image id {unknown!r}, which is not among the {len(position)} "
            "annotated pictures; evaluate them against the split they were made on"
        )
    counts = [len(found.labels) for found in detections]
    _check_lengths(image_ids, counts, "boxes_xyxy", [found.boxes_xyxy for found in detections])
    _check_lengths(image_ids, counts, "scores", [found.scores for found in detections])
    boxes_xyxy = _join([found.boxes_xyxy for found in detections], np.float32, (4,))
    labels = _join([found.labels for found in detections], np.int64)
    scores = _join([found.scores for found in detections], np.float32)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    _check_rows(image_ids, counts, "detection", boxes_xyxy, labels, num_classes)
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        place = _place(image_ids, counts, "detection", int(bad[0]))
        raise ValueError(f"{place}: score {scores[bad[0]]} is not finite")
    return DetectionTable(
        images=np.repeat(np.array([position[i] for i in image_ids], dtype=np.int64), counts),
        boxes_xyxy=boxes_xyxy,
        labels=labels.astype(np.int64),
        scores=scores,
    )


def _join(arrays: list[np.ndarray], dtype: type, shape: tuple[int, ...] = ()) -> np.ndarray:
    """The arrays end to end; an empty array of `dtype` where there are none at all."""
    filled = [array for array in map(np.asarray, arrays) if array.size]
    return np.concatenate(filled) if filled else np.zeros((0, *shape), dtype)


def _check_unique(image_ids: list[str], what: str) -> None:
    seen: set[str] = set()
    for image_id in image_ids:
        if image_id in seen:
            raise ValueError(f"image id {image_id!r} occurs twice among the {what}; keep one")
        seen.add(image_id)


def _check_lengths(
    image_ids: list[str], counts: list[int], name: str, arrays: list[np.ndarray]
) -> None:
    for image_id, count, array in zip(image_ids, counts, arrays, strict=True):
        if len(array) != count:
            raise ValueError(
                f"image {image_id!r}: {len(array)} rows of {name} for {count} labels; "
                "each label needs one"
            )


def _check_rows(
    image_ids: list[str],
    counts: list[int],
    what: str,
    boxes_xyxy: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
) -> None:
    bad = np.flatnonzero((labels < 1) | (labels > num_classes))
    if bad.size:
        place = _place(image_ids, counts, what, int(bad[0]))
        raise ValueError(f"{place}: label {labels[bad[0]]} is not one of 1…{num_classes}")
    # Whole columns, and rows only where one is bad: a reduction over four numbers a row is slow.
    is_finite = np.isfinite(boxes_xyxy)
    if not is_finite.all():
        row = int(np.argmin(is_finite.all(axis=1)))
        place = _place(image_ids, counts, what, row)
        raise ValueError(f"{place}: box {boxes_xyxy[row].tolist()} is not finite")
    x1, y1, x2, y2 = boxes_xyxy.T
    bad = np.flatnonzero((x2 < x1) | (y2 < y1))
    if bad.size:
        place = _place(image_ids, counts, what, int(bad[0]))
        raise ValueError(
            f"{place}: box {boxes_xyxy[bad[0]].tolist()} has a negative side; "
            "boxes are x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"
        )


def _place(image_ids: list[str], counts: list[int], what: str, row: int) -> str:
    """Where a flat row lies: `image 'x', detection 3` (counted from 0)."""
    ends = np.cumsum(counts)
    picture = int(np.searchsorted(ends, row, side="right"))
    return f"image {image_ids[picture]!r}, {what} {row - (int(ends[picture]) - counts[picture])}"
