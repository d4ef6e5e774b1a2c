"""Which detection finds which object: the matching of the PASCAL VOC development kit, vectorised.

A detection belongs to the object of its class and picture that it overlaps most, the first of
equals, if their IoU reaches the threshold. Among the detections that belong to one object, the one
with the highest score is true and the others are false; if the object is difficult, they all count
neither way. Areas are plain (x2 - x1) * (y2 - y1). N objects, K detections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssd_dist.evaluation.tables import DetectionTable, ObjectTable

_PAIRS_AT_ONCE = 1 << 18
"""(detection, object) pairs whose IoU is computed in one go: 2 MiB a temporary array, which stays
in cache and bounds the memory whatever the number of detections."""


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The verdict on every detection, in the order of its table."""

    true_positive: np.ndarray
    """(K,) bool."""
    ignored: np.ndarray
    """(K,) bool: belongs to a difficult object. A false positive is neither true nor ignored."""
    objects: np.ndarray
    """(K,) int64: the object that the detection belongs to; -1 where no overlap is enough."""
    order: np.ndarray
    """(K,) int64: rows by class, then by falling score, ties in the order of the table."""


def assign(
    objects: ObjectTable, detections: DetectionTable, *, iou_threshold: float = 0.5
) -> Assignment:
    """Decides for every detection of every class at once.

    Raises ValueError unless 0 < `iou_threshold` <= 1.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be above 0 and at most 1, not {iou_threshold}")
    nearest, iou = _most_overlapped(objects, detections)
    belongs_to = np.where(iou >= iou_threshold, nearest, -1)
    order = _rank(detections)

    ignored = np.zeros(len(belongs_to), dtype=bool)
    hits = np.flatnonzero(belongs_to >= 0)
    ignored[hits] = objects.difficult[belongs_to[hits]]

    # Of the detections that claim an object, in rank order, the first has it.
    claims = order[(belongs_to >= 0)[order] & ~ignored[order]]
    _, first = np.unique(belongs_to[claims], return_index=True)
    true_positive = np.zeros(len(belongs_to), dtype=bool)
    true_positive[claims[first]] = True
    return Assignment(true_positive, ignored, belongs_to, order)


def _rank(detections: DetectionTable) -> np.ndarray:
    """Rows by class, then by falling score; both sorts are stable, so ties keep their order."""
    by_score = np.argsort(-detections.scores, kind="stable")
    return by_score[np.argsort(detections.labels[by_score], kind="stable")]


def _most_overlapped(
    objects: ObjectTable, detections: DetectionTable
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the object of the same class and picture with the largest IoU, the first of equals, and
    (K,) that IoU; -1 and 0 where the picture has no object of the class."""
    num_labels = 1 + max(objects.labels.max(initial=0), detections.labels.max(initial=0))
    object_keys = objects.images * num_labels + objects.labels
    by_key = np.argsort(object_keys, kind="stable")
    # Objects with the same key lie side by side from here on: one run for each (picture, class).
    run_keys, run_starts, run_lengths = np.unique(
        object_keys[by_key], return_index=True, return_counts=True
    )
    keys = detections.images * num_labels + detections.labels
    run = np.searchsorted(run_keys, keys)
    run[run == len(run_keys)] = 0
    candidates = np.flatnonzero(run_keys[run] == keys) if len(run_keys) else np.zeros(0, np.int64)
    starts, lengths = run_starts[run[candidates]], run_lengths[run[candidates]]

    object_boxes = objects.boxes_xyxy[by_key].astype(np.float64)
    nearest = np.full(len(keys), -1, dtype=np.int64)
    largest = np.zeros(len(keys), dtype=np.float64)
    for part in _chunks(lengths):
        rows, counts = candidates[part], lengths[part]
        firsts = np.cumsum(counts) - counts  # where each detection's pairs begin in this chunk
        within = np.arange(counts.sum()) - np.repeat(firsts, counts)
        candidate = np.repeat(starts[part], counts) + within
        boxes = detections.boxes_xyxy[rows].astype(np.float64)
        iou = _iou(np.repeat(boxes, counts, axis=0), object_boxes[candidate])
        best = np.maximum.reduceat(iou, firsts)
        is_best = iou == np.repeat(best, counts)
        first_best = np.minimum.reduceat(np.where(is_best, candidate, len(by_key)), firsts)
        nearest[rows] = by_key[first_best]
        largest[rows] = best
    return nearest, largest


def _chunks(lengths: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive detections with about `_PAIRS_AT_ONCE` pairs each, at least one
    detection."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        done = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """(N,) IoU of N pairs of boxes, float64; 0 where both are without area."""
    width = np.minimum(a_xyxy[:, 2], b_xyxy[:, 2]) - np.maximum(a_xyxy[:, 0], b_xyxy[:, 0])
    height = np.minimum(a_xyxy[:, 3], b_xyxy[:, 3]) - np.maximum(a_xyxy[:, 1], b_xyxy[:, 1])
    intersection = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = _area(a_xyxy) + _area(b_xyxy) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    return area
