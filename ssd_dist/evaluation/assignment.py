"""Which detection finds which object: the matching of the PASCAL VOC development kit, vectorised.

A detection belongs to the object of its class and picture that it overlaps most, the first of
equals, if their IoU reaches the threshold. Among the detections that belong to one object, the one
with the highest score is true and the others are false; if the object is difficult, they all count
neither way. `ApOptions` has every rule that can be otherwise. N objects, K detections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import DetectionTable, ObjectTable

_DETECTIONS_AT_ONCE = 1 << 15
"""Detections that are worked on in one go: at most 256 KiB a temporary array, which stays in a
core's cache and bounds the memory whatever the number of detections."""
_FALSE, _TRUE, _IGNORED = 0, 1, 2
_VERDICT_BITS = 2


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
    scores: np.ndarray
    """(K,) float32 or float64: the scores along `order`, rounded if the options say so."""
    true_at: np.ndarray
    """(T,) int64, rising: the places of the true positives in `order`."""
    ignored_at: np.ndarray
    """int64, rising: the places of the ignored detections in `order`."""


def assign(
    objects: ObjectTable, detections: DetectionTable, *, options: ApOptions = PRESETS["exact"]
) -> Assignment:
    """Decides for every detection of every class at once."""
    scores = detections.scores
    if options.score_decimals is not None:
        scores = round_decimals(scores, options.score_decimals)
    num_detections, num_objects = len(scores), len(objects.labels)
    belongs_to = np.full(num_detections, -1, dtype=np.int64)
    verdicts = np.full(num_detections, _FALSE, dtype=np.uint8)
    highest = np.full(num_objects, -np.inf, dtype=scores.dtype)
    winners = np.full(num_objects, -1, dtype=np.int64)
    for rows, its_object in _find_objects(objects, detections, options):
        belongs_to[rows] = its_object
        if not options.count_difficult:
            is_difficult = objects.difficult[its_object]
            verdicts[rows[is_difficult]] = _IGNORED
            rows, its_object = rows[~is_difficult], its_object[~is_difficult]
        # The highest score has the object, and of equal ones the first row: the last to be written
        # where they are written backwards.
        bids, before = scores[rows], highest[its_object]
        np.maximum.at(highest, its_object, bids)
        wins = np.flatnonzero((bids == highest[its_object]) & (bids > before))[::-1]
        winners[its_object[wins]] = rows[wins]
    verdicts[winners[winners >= 0]] = _TRUE

    order, ranked_scores, ranked_verdicts = _rank(detections.labels, scores, verdicts)
    marked = np.flatnonzero(ranked_verdicts)
    return Assignment(
        true_positive=verdicts == _TRUE,
        ignored=verdicts == _IGNORED,
        objects=belongs_to,
        order=order,
        scores=ranked_scores,
        true_at=marked[ranked_verdicts[marked] == _TRUE],
        ignored_at=marked[ranked_verdicts[marked] == _IGNORED],
    )


def round_decimals(values: np.ndarray, decimals: int) -> np.ndarray:
    """The float64 numbers that are read back from `f"{x:.{decimals}f}"`, x being `values` as
    float32. `decimals` is 0 to 8.

    `np.round` would not do: 0.35 times 10 is rounded up to 3.5, and then to 4. A float32 times
    10**8 is exact in float64, and so is the decision between two decimals, halves to even.
    """
    scale = 10.0**decimals
    return np.rint(values.astype(np.float32).astype(np.float64) * scale) / scale


def _rank(
    labels: np.ndarray, scores: np.ndarray, verdicts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) rows by class, then by falling score, ties in the order of the table; and (K,) the
    scores and verdicts in that order.

    Where label, score, row and verdict fit a 64-bit number, it is these numbers that are sorted:
    many times faster than rows by their labels and scores, and nothing is looked up row by row
    after. They are made and read a part at a time, in a core's cache.
    """
    num_rows = len(labels)
    row_bits, label_bits = num_rows.bit_length(), int(labels.max(initial=0)).bit_length()
    in_single = scores.astype(np.float32, copy=False)
    fits = label_bits + 32 + row_bits + _VERDICT_BITS <= 64
    if not fits or (in_single is not scores and (in_single != scores).any()):
        by_rank = np.lexsort((-scores, labels))  # stable
        return by_rank, scores[by_rank], verdicts[by_rank]

    keys = np.empty(num_rows, dtype=np.uint64)
    for part in _parts(num_rows):
        key = labels[part].astype(np.uint64)
        key <<= np.uint64(32)
        key |= _falling((in_single[part] + np.float32(0)).view(np.uint32))  # -0 becomes 0
        key <<= np.uint64(row_bits)
        key |= np.arange(part.start, part.stop, dtype=np.uint64)
        key <<= np.uint64(_VERDICT_BITS)
        key |= verdicts[part]
        keys[part] = key
    keys.sort()
    ranked_scores, ranked_verdicts = np.empty_like(scores), np.empty_like(verdicts)
    for part in _parts(num_rows):
        key = keys[part]  # a view: the rows take the place of the keys
        ranked_verdicts[part] = key & np.uint64((1 << _VERDICT_BITS) - 1)
        key >>= np.uint64(_VERDICT_BITS)
        bits = (key >> np.uint64(row_bits)).astype(np.uint32)  # without the label
        ranked_scores[part] = _falling(bits).view(np.float32)
        key &= np.uint64((1 << row_bits) - 1)
    return keys.view(np.int64), ranked_scores, ranked_verdicts


def _falling(bits: np.ndarray) -> np.ndarray:
    """uint32 that fall where float32 of these `bits` rise; twice, the bits again. The bits of a
    negative float fall by themselves."""
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))


def _parts(length: int) -> Iterator[slice]:
    """Slices of `_DETECTIONS_AT_ONCE` rows; the last may be shorter."""
    for start in range(0, length, _DETECTIONS_AT_ONCE):
        yield slice(start, min(start + _DETECTIONS_AT_ONCE, length))


def _find_objects(
    objects: ObjectTable, detections: DetectionTable, options: ApOptions
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Part after part of the detections: the rows of those that belong to an object, rising, and
    these objects' rows."""
    if not len(objects.labels) or not len(detections.labels):
        return
    num_labels = 1 + max(objects.labels.max(), detections.labels.max())
    object_keys = objects.images * num_labels + objects.labels
    is_last = objects.difficult & options.difficult_last
    by_key = np.lexsort((is_last, object_keys))  # stable
    # Objects with the same key lie side by side from here on: one run for each (picture, class).
    run_keys, run_starts, run_lengths = np.unique(
        object_keys[by_key], return_index=True, return_counts=True
    )
    dtype = np.float32 if options.single_precision else np.float64
    pixel = 1 if options.inclusive_pixels else 0
    reaches = np.greater if options.strict_iou else np.greater_equal
    object_rows = _rows(objects.boxes_xyxy[by_key], dtype, pixel)
    for part in _parts(len(detections.labels)):
        keys = detections.images[part] * num_labels + detections.labels[part]
        # Neighbours are mostly of the same pictures: a search among the runs of these is short.
        low = np.searchsorted(run_keys, keys.min())
        near = run_keys[low : np.searchsorted(run_keys, keys.max()) + 1]
        if not len(near):
            continue
        run = np.searchsorted(near, keys)
        # Only these have an object of their class in their picture, usually a small part.
        rows = np.flatnonzero(near.take(run, mode="clip") == keys)
        run = low + run[rows]
        rows += part.start
        boxes_xyxy = _as_compared(detections.boxes_xyxy[rows], options)
        nearest, iou = _most_overlapped(
            _rows(boxes_xyxy, dtype, pixel), object_rows, run_starts[run], run_lengths[run], pixel
        )
        enough = reaches(iou, options.iou_threshold)
        yield rows[enough], by_key[nearest[enough]]


def _as_compared(boxes_xyxy: np.ndarray, options: ApOptions) -> np.ndarray:
    """Boxes of detections, moved and rounded where the options say so."""
    if options.corner_offset:
        offset = np.array([options.corner_offset] * 2 + [0, 0], dtype=boxes_xyxy.dtype)
        boxes_xyxy = boxes_xyxy + offset
    if options.box_decimals is not None:
        boxes_xyxy = round_decimals(boxes_xyxy, options.box_decimals)
    return boxes_xyxy


def _rows(boxes_xyxy: np.ndarray, dtype: type, pixel: int) -> np.ndarray:
    """(5, N): rows of x1, y1, x2, y2 and the area of N boxes."""
    rows: np.ndarray = np.empty((5, len(boxes_xyxy)), dtype=dtype)
    rows[:4] = boxes_xyxy.T
    rows[4] = (rows[2] - rows[0] + pixel) * (rows[3] - rows[1] + pixel)
    return rows


def _most_overlapped(
    boxes: np.ndarray, objects: np.ndarray, starts: np.ndarray, lengths: np.ndarray, pixel: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each of n `boxes` (5, n) the position of the object that it overlaps most, the first of
    equals, among the `lengths[i]` from `starts[i]` on in `objects` (5, N); and their IoU."""
    nearest = starts.copy()
    largest = _iou(boxes, objects.take(starts, axis=1), pixel)
    nth = 1
    left = np.flatnonzero(lengths > nth)
    while left.size:
        nth_object = starts[left] + nth
        iou = _iou(boxes.take(left, axis=1), objects.take(nth_object, axis=1), pixel)
        larger = iou > largest[left]
        nearest[left[larger]] = nth_object[larger]
        largest[left[larger]] = iou[larger]
        nth += 1
        left = left[lengths[left] > nth]
    return nearest, largest


def _iou(a: np.ndarray, b: np.ndarray, pixel: int) -> np.ndarray:
    """(N,) IoU of N pairs of boxes (5, N); NaN where both are without area, which overlap nothing
    else either: NaN is neither larger than an IoU nor enough."""
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + pixel
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + pixel
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore"):
        return intersection / (a[4] + b[4] - intersection)
