"""What a detector does wrong, by kind: TIDE's analysis (Bolya et al. 2020) of VOC's matching.

Every false positive is exactly one of these, the first that fits; t is the IoU threshold of average
precision and b = 0.1 that of the background:

* box: the largest IoU with an object of its class is at least b, but below t;
* class: the IoU with an object of another class reaches t;
* duplicate: it belongs to an object of its class that a detection with a higher score has;
* both: the IoU with an object of another class is at least b;
* background: no IoU reaches b.

Missed is an object that nothing found and that no box or class error is about: an object that was
seen, but wrongly, shows up as that error. True positives are called correct.

TIDE's own package, tidecv, asks in the same order and counts the same, but where an IoU is exactly
a threshold, where a detection reaches t with two objects of its class (VOC's matching does not try
the second), and at difficult objects, which it takes away.

The options decide what is correct, a duplicate or left out; between the other kinds decide plain
overlaps of the boxes as they stand.

Difficult objects can't be found or missed, but are there: a detection of another class on one is a
class error and one that lies badly on it a box error, as it would not count if it were better.

N objects and K detections over all pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.assignment import Assignment, assign
from ssd_dist.evaluation.bootstrap import (
    average_precisions,
    counts_in_recall,
    mean_ap,
    rank_true_positives,
)
from ssd_dist.evaluation.confusion import Pairs, overlapping_pairs, with_scores_from
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import DetectionTable, ObjectTable

KINDS = ("correct", "class", "box", "both", "duplicate", "background", "missed")
_CORRECT, _CLASS, _BOX, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(KINDS))
_IGNORED = -1


def count_errors(
    objects: ObjectTable,
    detections: DetectionTable,
    num_classes: int,
    *,
    score_threshold: float | Sequence[float],
    options: ApOptions = PRESETS["exact"],
    background_iou: float = 0.1,
) -> dict[int, dict[str, int]]:
    """Label 1…C → kind, one of `KINDS` → how many; at 0 the sums over all classes.

    Only detections with a score of `score_threshold` or more are looked at: one for all classes or
    (C,) one for each, for instance that of the best F1. A detection counts for the class that it
    says, a missed object for its own. Raises ValueError for thresholds out of range.
    """
    kept = with_scores_from(detections, score_threshold, num_classes)
    diagnosis = diagnose(objects, kept, options=options, background_iou=background_iou)
    judged = diagnosis.kind != _IGNORED
    kinds = np.concatenate(
        [diagnosis.kind[judged], np.full(np.count_nonzero(diagnosis.missed), _MISSED)]
    )
    labels = np.concatenate([kept.labels[judged], objects.labels[diagnosis.missed]])
    counts = np.bincount(
        labels * len(KINDS) + kinds, minlength=(num_classes + 1) * len(KINDS)
    ).reshape(num_classes + 1, len(KINDS))
    counts[0] = counts.sum(axis=0)
    return {label: dict(zip(KINDS, row, strict=True)) for label, row in enumerate(counts.tolist())}


def map_lost(
    objects: ObjectTable,
    detections: DetectionTable,
    num_classes: int,
    *,
    options: ApOptions = PRESETS["exact"],
    background_iou: float = 0.1,
) -> dict[str, float]:
    """Kind of error → how much higher the 11-point mAP would be without it (TIDE's dAP), 0 to 1.

    All detections are looked at, as for mAP. What a kind's repair does: a class or box error gets
    the class or box of its object and so becomes true, if the object is still free and it is the
    highest-scoring of these errors about it, and is taken away otherwise; errors of the other kinds
    are taken away; missed objects are not asked for, and a class without any other drops out of the
    mean. One repair at a time: the values do not add up to 1 - mAP.

    Raises ValueError if there is no object to be found, or a threshold is out of range.
    """
    counts = counts_in_recall(objects, options)
    num_objects = np.bincount(objects.labels[counts], minlength=num_classes + 1)[1:]
    if not num_objects.any():
        raise ValueError(
            "no picture has an object that counts: average precision has no meaning without one"
        )
    diagnosis = diagnose(objects, detections, options=options, background_iou=background_iou)
    scores = np.empty_like(diagnosis.assignment.scores)
    scores[diagnosis.assignment.order] = diagnosis.assignment.scores
    by_score = np.argsort(-scores, kind="stable")
    judged = by_score[diagnosis.kind[by_score] != _IGNORED]

    def map_of(rows: np.ndarray, labels: np.ndarray, true: np.ndarray, n: np.ndarray) -> float:
        """mAP of some detections, by falling score, with these labels and verdicts."""
        order = rows[np.argsort(labels[rows], kind="stable")]
        ranking = rank_true_positives(labels[order], true[order], num_classes)
        num_true = np.arange(1, len(ranking.true_positives) + 1)
        num_counted = ranking.true_positives + 1
        aps = average_precisions(num_true, num_counted, ranking.bounds, n, options)
        return mean_ap(aps, n, options)

    labels, true = detections.labels, diagnosis.assignment.true_positive
    now = map_of(judged, labels, true, num_objects)
    lost = {}
    for kind in (_CLASS, _BOX, _BOTH, _DUPLICATE, _BACKGROUND):
        errors = judged[diagnosis.kind[judged] == kind]
        saved = errors[_first_of_each(diagnosis.repairs[errors])]
        new_labels, new_true = labels.copy(), true.copy()
        new_labels[saved] = objects.labels[diagnosis.repairs[saved]]
        new_true[saved] = True
        rows = judged[(diagnosis.kind[judged] != kind) | new_true[judged]]
        lost[KINDS[kind]] = map_of(rows, new_labels, new_true, num_objects) - now
    num_missed = np.bincount(objects.labels[diagnosis.missed], minlength=num_classes + 1)[1:]
    remaining = num_objects - num_missed
    lost[KINDS[_MISSED]] = (
        map_of(judged, labels, true, remaining) - now if remaining.any() else 1 - now
    )
    return lost


class Diagnosis(NamedTuple):
    """The verdict on every detection and object."""

    kind: np.ndarray
    """(K,) int64: position in `KINDS`; -1: belongs to a difficult object and does not count."""
    repairs: np.ndarray
    """(K,) int64: for a class or box error the object that it is about, if it counts and nothing
    has found it; -1 otherwise."""
    missed: np.ndarray
    """(N,) bool."""
    assignment: Assignment
    """The verdicts of average precision, which the kinds follow."""


def diagnose(
    objects: ObjectTable,
    detections: DetectionTable,
    *,
    options: ApOptions = PRESETS["exact"],
    background_iou: float = 0.1,
) -> Diagnosis:
    """Finds the kind of each detection. Of several objects an error is about the one that it
    overlaps most, the first of equals.

    Raises ValueError unless 0 < `background_iou` < the options' `iou_threshold`.
    """
    if not 0 < background_iou < options.iou_threshold:
        raise ValueError(
            f"background_iou must be above 0 and below the IoU threshold {options.iou_threshold}, "
            f"not {background_iou}"
        )
    assignment = assign(objects, detections, options=options)
    pairs = overlapping_pairs(objects, detections, background_iou)
    agree = objects.labels[pairs.objects] == detections.labels[pairs.detections]
    num_detections = len(detections.labels)
    _, same_object = _nearest(pairs, agree, num_detections)
    other_iou, other_object = _nearest(pairs, ~agree, num_detections)

    belongs = assignment.objects >= 0
    kind = np.select(
        [
            assignment.ignored,
            assignment.true_positive,
            ~belongs & (same_object >= 0),
            other_iou >= options.iou_threshold,
            belongs,
            other_object >= 0,
        ],
        [_IGNORED, _CORRECT, _BOX, _CLASS, _DUPLICATE, _BOTH],
        default=_BACKGROUND,
    )

    about = np.select([kind == _BOX, kind == _CLASS], [same_object, other_object], default=-1)
    counts = ~objects.difficult | options.count_difficult
    is_found = np.zeros(len(objects.labels), dtype=bool)
    is_found[assignment.objects[assignment.true_positive]] = True
    free = np.append(counts & ~is_found, False)  # -1 is none
    is_seen = np.zeros(len(objects.labels), dtype=bool)
    is_seen[about[about >= 0]] = True
    return Diagnosis(
        kind=kind,
        repairs=np.where(free[about], about, -1),
        missed=counts & ~is_found & ~is_seen,
        assignment=assignment,
    )


def _nearest(pairs: Pairs, chosen: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(K,) largest IoU of each detection among the chosen pairs and (K,) its object, the first of
    equals; 0 and -1 where there is no pair."""
    largest = np.zeros(num_rows)
    nearest = np.full(num_rows, -1, dtype=np.int64)
    rows, iou = pairs.detections[chosen], pairs.iou[chosen]
    if not len(rows):
        return largest, nearest
    # The pairs of a detection lie side by side, its objects in their order.
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    largest[rows[starts]] = np.maximum.reduceat(iou, starts)
    is_best = np.flatnonzero(iou == largest[rows])[::-1]
    nearest[rows[is_best]] = pairs.objects[chosen][is_best]  # the first is written last and stays
    return largest, nearest


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """Where each value occurs for the first time, by rising value; -1 is no value."""
    distinct, first = np.unique(values, return_index=True)
    return first[distinct >= 0]
