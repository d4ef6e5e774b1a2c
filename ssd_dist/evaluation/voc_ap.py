"""11-point average precision (Eq. 4-6), exact: PASCAL VOC 2007's measure.

For a class with n objects that are not difficult, walk down its detections by falling score.
After each, precision = TP / (TP + FP) and recall = TP / n (Eq. 4, 5). AP is the mean, over the
recall levels i/10 for i = 0…10, of the largest precision at any recall of at least that level,
0 where it is never reached (Eq. 6). The levels are compared as whole numbers, 10·TP >= i·n: 0.3
and 0.7 have no exact binary form, and a class that ends exactly there must not lose a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.assignment import assign
from ssd_dist.evaluation.tables import flatten_annotations, flatten_detections
from ssd_dist.structures import Annotation, Detections

NUM_LEVELS = 11


class Rank(NamedTuple):
    """One of the 11 recall levels of a class."""

    recall: float
    """The level: 0, 0.1, …, 1."""
    confidence: float | None
    """The score threshold at which the level is first reached; None: never reached."""
    precision: float
    """The largest precision at this recall or above; 0 if it is never reached."""


class Curve(NamedTuple):
    """Precision and recall of a class after each of its detections, by falling score.

    Detections of difficult objects count neither way and do not appear.
    """

    recall: np.ndarray
    """(K,) float64, never falling."""
    precision: np.ndarray
    """(K,) float64."""
    confidence: np.ndarray
    """(K,) the detections' scores, never rising."""


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """Average precision of a split; every mapping has all classes, in the order of their labels."""

    map_11pt: float
    """Mean of `ap_11pt` over the classes that occur."""
    ap_11pt: dict[str, float | None]
    """Class name → AP, 0 to 1; None for a class without an object that is not difficult."""
    ranks: dict[str, list[Rank]]
    """Class name → its 11 recall levels; all "never reached" for a class without objects."""
    curves: dict[str, Curve]
    """Class name → its curve; empty for a class without objects."""
    num_objects: dict[str, int]
    """Class name → number of its objects that are not difficult."""
    iou_threshold: float
    """IoU from which on a detection finds an object."""


def evaluate_voc(
    annotations: Sequence[Annotation],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> VocResult:
    """11-point AP of every class, and their mean.

    `class_names[i]` is the name of label i + 1. Detections may come in any order, and pictures
    without any may be left out; equal scores rank in the order in which they are given.

    Raises ValueError if the same picture comes twice, detections belong to no annotated picture,
    a box or score is not finite, a box has a negative side, a label has no class name (each naming
    picture and row), a class name occurs twice, or no class has an object to be found.
    """
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class names must differ from each other, not {list(class_names)}")
    num_classes = len(class_names)
    objects = flatten_annotations(annotations, num_classes)
    found = flatten_detections(detections, annotations, num_classes)
    num_objects = np.bincount(objects.labels[~objects.difficult], minlength=num_classes + 1)[1:]
    if not num_objects.any():
        raise ValueError(
            f"none of the {len(annotations)} pictures has an object that is not difficult: "
            "average precision has no meaning without one"
        )

    assignment = assign(objects, found, iou_threshold=iou_threshold)
    counted = assignment.order[~assignment.ignored[assignment.order]]
    true_positive = assignment.true_positive[counted]
    scores = found.scores[counted]
    # `counted` lies class by class: one slice for each.
    bounds = np.searchsorted(found.labels[counted], np.arange(1, num_classes + 2))

    aps: dict[str, float | None] = {}
    ranks: dict[str, list[Rank]] = {}
    curves: dict[str, Curve] = {}
    for name, n, start, stop in zip(
        class_names, num_objects.tolist(), bounds[:-1], bounds[1:], strict=True
    ):
        part = slice(start, stop if n else start)
        num_true = np.cumsum(true_positive[part])
        precision = num_true / np.arange(1, len(num_true) + 1)
        curves[name] = Curve(num_true / max(n, 1), precision, scores[part])
        ranks[name] = _ranks(num_true, precision, scores[part], n)
        aps[name] = math.fsum(r.precision for r in ranks[name]) / NUM_LEVELS if n else None
    occurring = [ap for ap in aps.values() if ap is not None]
    return VocResult(
        map_11pt=math.fsum(occurring) / len(occurring),
        ap_11pt=aps,
        ranks=ranks,
        curves=curves,
        num_objects=dict(zip(class_names, num_objects.tolist(), strict=True)),
        iou_threshold=iou_threshold,
    )


def _ranks(
    num_true: np.ndarray, precision: np.ndarray, scores: np.ndarray, num_objects: int
) -> list[Rank]:
    """The 11 levels of one class from its detections by falling score."""
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.arange(NUM_LEVELS)
    reached = np.searchsorted(10 * num_true, levels * num_objects)  # first with 10·TP >= i·n
    return [
        Rank(level / 10, float(scores[at]), float(best_from_here[at]))
        if at < len(num_true)
        else Rank(level / 10, None, 0.0)
        for level, at in zip(levels.tolist(), reached.tolist(), strict=True)
    ]
