"""Where to set the score threshold of each class: the one with the largest F1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.voc_ap import Curve, VocResult

DEFAULT_SCORE_THRESHOLD = 0.5
"""Where a class of which no detection is right is cut: it has no best F1, and its mistakes should
show."""


class OperatingPoint(NamedTuple):
    """What a class's detections are worth when only those with `threshold` or more are kept."""

    threshold: float
    """The lowest score that is kept; exactly the score of a detection."""
    precision: float
    """TP / (TP + FP), above 0."""
    recall: float
    """TP / n, above 0."""
    f1: float
    """2 · precision · recall / (precision + recall) = 2 TP / (n + TP + FP), above 0."""


def best_f1(result: VocResult) -> dict[str, OperatingPoint | None]:
    """Class name → the threshold with the largest F1; of equal ones the highest.

    A threshold can't cut between equal scores: they are kept or dropped together. None for a class
    without objects, or of which nothing is found at any threshold.
    """
    return {
        name: _best(result.curves[name], num_objects)
        for name, num_objects in result.num_objects.items()
    }


def score_thresholds(points: Mapping[str, OperatingPoint | None]) -> dict[str, float]:
    """Class name → the threshold of its operating point, `DEFAULT_SCORE_THRESHOLD` without one."""
    return {
        name: DEFAULT_SCORE_THRESHOLD if point is None else point.threshold
        for name, point in points.items()
    }


def _best(curve: Curve, num_objects: int) -> OperatingPoint | None:
    if not curve.recall.any():
        return None
    # The last of every run of equal scores: (T,) positions at which a threshold can cut.
    is_last = np.append(curve.confidence[1:] != curve.confidence[:-1], True)
    cuts = np.flatnonzero(is_last)
    num_true = np.rint(curve.recall[cuts] * num_objects)
    # In whole numbers, so that equal values of F1 are equal.
    f1 = 2 * num_true / (num_objects + cuts + 1)
    best = int(np.argmax(f1))
    cut = cuts[best]
    return OperatingPoint(
        threshold=float(curve.confidence[cut]),
        precision=float(curve.precision[cut]),
        recall=float(curve.recall[cut]),
        f1=float(f1[best]),
    )
