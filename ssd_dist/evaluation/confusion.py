"""Which class is taken for which: the confusion matrix of a detector, with background.

Unlike for average precision, detections and objects are matched whatever their classes: every pair
in a picture whose IoU reaches the threshold is a candidate, and pairs are taken by falling IoU, an
object and a detection at most once each. That is the order of Ultralytics' matrix, but carried to
its end: where a detection's best object is taken, its second best is tried. Of equal overlaps the
one with the higher score is taken (a prior's box is often kept for two classes, and the detector's
first answer counts), then the one with the right class, then the first object.

N objects and K detections over all pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.tables import DetectionTable, ObjectTable

_PAIRS_AT_ONCE = 1 << 18
"""(detection, object) pairs whose IoU is computed in one go: bounds the memory."""


def confusion_matrix(
    objects: ObjectTable,
    detections: DetectionTable,
    num_classes: int,
    *,
    score_threshold: float | Sequence[float],
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """(C+1, C+1) int64: `matrix[i, j]` objects of class i were detected as class j.

    Index 0 is the background: column 0 holds the objects that nothing found, row 0 the detections
    that found nothing, and [0, 0] is 0. Row i > 0 sums to the number of objects of class i.
    Difficult objects count neither way: they are not in their row, they take any number of
    detections of any class, and these are not in their column.

    Detections with a score below `score_threshold`, one for all classes or (C,) one for each, are
    left out. Raises ValueError unless 0 < `iou_threshold` <= 1, or if there are neither one nor C
    thresholds.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be above 0 and at most 1, not {iou_threshold}")
    kept = with_scores_from(detections, score_threshold, num_classes)
    its_object = _match(objects, kept, overlapping_pairs(objects, kept, iou_threshold))

    is_found = np.zeros(len(objects.labels), dtype=bool)
    is_found[its_object[its_object >= 0]] = True
    missed = objects.labels[~is_found & ~objects.difficult]
    # One more object at the end, of class 0 and not difficult: the -1 of unmatched detections.
    truth = np.append(objects.labels, 0)[its_object]
    counted = ~np.append(objects.difficult, False)[its_object]

    rows = np.concatenate([truth[counted], missed])
    columns = np.concatenate([kept.labels[counted], np.zeros_like(missed)])
    side = num_classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)


def with_scores_from(
    detections: DetectionTable, score_threshold: float | Sequence[float], num_classes: int
) -> DetectionTable:
    """The detections whose score is `score_threshold` or more, in their order.

    One threshold for all classes, or (C,) that of label i + 1 at position i; infinity keeps none.
    It is rounded to the scores' precision, so that a float32 score of 0.7 reaches 0.7. Raises
    ValueError for another number of thresholds, or NaN.
    """
    thresholds = np.asarray(score_threshold, dtype=np.float64)
    if thresholds.shape not in ((), (num_classes,)) or np.isnan(thresholds).any():
        raise ValueError(
            f"score_threshold must be one number or {num_classes}, one for each class, "
            f"not {score_threshold}"
        )
    by_label = np.broadcast_to(thresholds, num_classes).astype(detections.scores.dtype)
    kept = detections.scores >= by_label[detections.labels - 1]
    return DetectionTable(
        images=detections.images[kept],
        boxes_xyxy=detections.boxes_xyxy[kept],
        labels=detections.labels[kept],
        scores=detections.scores[kept],
    )


class Pairs(NamedTuple):
    """Overlapping detections and objects of the same picture, whatever their classes, by rising
    row of the detection, then of the object."""

    detections: np.ndarray
    """(Q,) int64: row of the detection."""
    objects: np.ndarray
    """(Q,) int64: row of the object."""
    iou: np.ndarray
    """(Q,) float64."""


def overlapping_pairs(
    objects: ObjectTable, detections: DetectionTable, iou_threshold: float
) -> Pairs:
    """Every pair in a picture with an IoU of at least `iou_threshold`, which is above 0."""
    by_image = np.argsort(objects.images, kind="stable")  # stable: their order within a picture
    images = objects.images[by_image]
    first = np.searchsorted(images, detections.images, side="left")
    counts = np.searchsorted(images, detections.images, side="right") - first
    object_boxes = objects.boxes_xyxy[by_image].astype(np.float64)
    parts = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for part in _chunks(counts):
        rows = np.repeat(np.arange(part.start, part.stop), counts[part])
        # A detection's pairs lie side by side: its first object, and on from there.
        starts = np.cumsum(counts[part]) - counts[part]
        candidates = np.arange(len(rows)) + np.repeat(first[part] - starts, counts[part])
        iou = _iou(detections.boxes_xyxy[rows].astype(np.float64), object_boxes[candidates])
        near = np.flatnonzero(iou >= iou_threshold)
        parts.append(Pairs(rows[near], by_image[candidates[near]], iou[near]))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _match(objects: ObjectTable, detections: DetectionTable, pairs: Pairs) -> np.ndarray:
    """(K,) int64: the object of each detection, -1 for none. Difficult objects take any number of
    detections, the others at most one."""
    agree = objects.labels[pairs.objects] == detections.labels[pairs.detections]
    order = np.lexsort((pairs.objects, ~agree, -detections.scores[pairs.detections], -pairs.iou))
    found, target = pairs.detections[order], pairs.objects[order]

    its_object = np.full(len(detections.labels), -1, dtype=np.int64)
    is_taken = np.zeros(len(objects.labels), dtype=bool)
    # A pair that comes before all others of its detection and of its object is taken whatever
    # happens elsewhere. Taking all such pairs at once, again and again, is taking them one by one.
    first_of_detection = np.empty(len(detections.labels), dtype=np.int64)
    first_of_object = np.empty(len(objects.labels), dtype=np.int64)
    while len(found):
        backwards = np.arange(len(found))[::-1]  # the last to be written is the first pair
        first_of_detection[found[::-1]] = backwards
        first_of_object[target[::-1]] = backwards
        is_first = np.arange(len(found)) == first_of_detection[found]
        is_first &= objects.difficult[target] | (np.arange(len(found)) == first_of_object[target])
        its_object[found[is_first]] = target[is_first]
        is_taken[target[is_first]] = True
        is_taken &= ~objects.difficult
        open_ = (its_object[found] < 0) & ~is_taken[target]
        found, target = found[open_], target[open_]
    return its_object


def _chunks(counts: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive detections with about `_PAIRS_AT_ONCE` pairs each, at least one
    detection."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """(Q,) IoU of Q pairs of boxes, float64; 0 where both are without area."""
    size = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2])
    intersection = np.maximum(size, 0.0).prod(axis=1)
    union = _area(a_xyxy) + _area(b_xyxy) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return area
