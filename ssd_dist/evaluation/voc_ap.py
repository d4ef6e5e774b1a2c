"""11-point average precision (Eq. 4-6), exact: PASCAL VOC 2007's measure.

For a class with n objects that are not difficult, walk down its detections by falling score.
After each, precision = TP / (TP + FP) and recall = TP / n (Eq. 4, 5). AP is the mean, over the
recall levels i/10 for i = 0…10, of the largest precision at any recall of at least that level,
0 where it is never reached (Eq. 6). The levels are compared as whole numbers, 10·TP >= i·n: 0.3
and 0.7 have no exact binary form, and a class that ends exactly there must not lose a point.

Beside it stands PASCAL VOC's measure from 2010 on, the area under the whole curve after the same
interpolation. docs/average_precision.md explains both, and how other programs differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.assignment import Assignment, assign
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import (
    DetectionTable,
    ObjectTable,
    flatten_annotations,
    flatten_detections,
)
from ssd_dist.structures import Annotation, Detections

NUM_LEVELS = 11
_LEVELS = np.arange(NUM_LEVELS)
FLOAT_LEVELS = {
    "arange": 0.1 * _LEVELS,
    "matlab": np.where(_LEVELS < 6, 0.1 * _LEVELS, 1 - 0.1 * _LEVELS[::-1]),
}
"""`ApOptions.recall_levels` → (11,) float64 as those programs have them, to the last bit."""


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
class _Curves(Mapping[str, Curve]):
    """Class name → its curve, made when it is looked at: no number needs the curves, which take
    longer to write down than to rank."""

    true_at: dict[str, np.ndarray]
    """(T,) int64: the places of the class's true positives among its detections by rank."""
    scores: dict[str, np.ndarray]
    """(K,) the scores of these detections."""
    num_objects: dict[str, int]

    def __getitem__(self, name: str) -> Curve:
        true_at, scores = self.true_at[name], self.scores[name]
        num_true = np.arange(len(true_at) + 1)
        lengths = np.diff(true_at, prepend=0, append=len(scores))  # rows with 0, 1, … true so far
        recall = np.repeat(num_true / max(self.num_objects[name], 1), lengths)
        precision = np.repeat(num_true.astype(np.float64), lengths)
        precision /= np.arange(1, len(scores) + 1)
        return Curve(recall, precision, scores)

    def __iter__(self) -> Iterator[str]:
        return iter(self.true_at)

    def __len__(self) -> int:
        return len(self.true_at)


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """Average precision of a split; every mapping has all classes, in the order of their labels.

    An object counts if it is not difficult; with other options than `exact`, as they say.
    """

    map_11pt: float
    """Mean of `ap_11pt` over the classes that occur."""
    ap_11pt: dict[str, float | None]
    """Class name → AP, 0 to 1; None for a class without an object that counts."""
    map_area: float
    """Mean of `ap_area` over the classes that occur."""
    ap_area: dict[str, float | None]
    """Class name → area under its whole interpolated curve, 0 to 1 (VOC 2010+); None likewise."""
    ranks: dict[str, list[Rank]]
    """Class name → its 11 recall levels; all "never reached" for a class without objects."""
    curves: Mapping[str, Curve]
    """Class name → its curve; empty for a class without objects."""
    num_objects: dict[str, int]
    """Class name → number of its objects that count: what recall is divided by."""
    options: ApOptions
    """The rules by which all this was computed."""


def evaluate_voc(
    annotations: Sequence[Annotation],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    *,
    options: ApOptions = PRESETS["exact"],
) -> VocResult:
    """AP of every class and its mean over them: of 11 points, and of the area under the curve.

    `class_names[i]` is the name of label i + 1. Detections may come in any order, and pictures
    without any may be left out; equal scores rank in the order in which they are given.

    Raises ValueError if the same picture comes twice, detections belong to no annotated picture,
    a box or score is not finite, a box has a negative side, a label has no class name (each naming
    picture and row), a class name occurs twice, or no class has an object to be found.
    """
    objects = flatten_annotations(annotations, len(class_names))
    found = flatten_detections(detections, annotations, len(class_names))
    return evaluate_tables(objects, found, class_names, options=options)


def evaluate_tables(
    objects: ObjectTable,
    detections: DetectionTable,
    class_names: Sequence[str],
    *,
    options: ApOptions = PRESETS["exact"],
) -> VocResult:
    """The same as `evaluate_voc` of a split that is flat and checked already.

    Raises ValueError if a class name occurs twice, or no class has an object to be found.
    """
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class names must differ from each other, not {list(class_names)}")
    num_classes = len(class_names)
    counts = ~objects.difficult | options.count_difficult | options.difficult_in_recall
    num_objects = np.bincount(objects.labels[counts], minlength=num_classes + 1)[1:]
    if not num_objects.any():
        raise ValueError(
            f"none of the {len(counts)} objects counts: average precision has no meaning without "
            "one that is not difficult"
        )

    assignment = assign(objects, detections, options=options)
    numbers = dict(zip(class_names, num_objects.tolist(), strict=True))
    curves = _Curves({}, {}, numbers)
    ranks: dict[str, list[Rank]] = {}
    ap_11pt: dict[str, float | None] = {}
    ap_area: dict[str, float | None] = {}
    # The order lies class by class: where each begins, and the last ends.
    bounds = np.searchsorted(
        detections.labels, np.arange(1, num_classes + 2), sorter=assignment.order
    ).tolist()
    for (name, n), start, stop in zip(numbers.items(), bounds[:-1], bounds[1:], strict=True):
        true_at, scores = _counted(assignment, start, stop if n else start)
        curves.true_at[name], curves.scores[name] = true_at, scores
        num_true = np.arange(1, len(true_at) + 1)
        # Precision is largest at a true positive: the others can be left aside.
        envelope = np.maximum.accumulate((num_true / (true_at + 1))[::-1])[::-1]
        ranks[name] = _ranks(true_at, envelope, scores, n, options)
        ap_11pt[name] = math.fsum(r.precision for r in ranks[name]) / NUM_LEVELS if n else None
        ap_area[name] = math.fsum(envelope) / n if n else None  # each raises recall by 1/n

    num_in_mean = num_classes if options.mean_over == "all" else int((num_objects > 0).sum())
    return VocResult(
        map_11pt=_sum(ap_11pt) / num_in_mean,
        ap_11pt=ap_11pt,
        map_area=_sum(ap_area) / num_in_mean,
        ap_area=ap_area,
        ranks=ranks,
        curves=curves,
        num_objects=numbers,
        options=options,
    )


def _counted(assignment: Assignment, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the detections at `start` to `stop` in the order, without those that are ignored: (T,) the
    places of the true positives among them, and (K,) their scores."""

    def inside(places: np.ndarray) -> np.ndarray:
        first, last = np.searchsorted(places, [start, stop])
        return places[first:last] - start

    true_at, ignored_at = inside(assignment.true_at), inside(assignment.ignored_at)
    scores = assignment.scores[start:stop]
    if len(ignored_at):
        true_at = true_at - np.searchsorted(ignored_at, true_at)  # so many before each fall out
        scores = np.delete(scores, ignored_at)
    return true_at, scores


def _ranks(
    true_at: np.ndarray,
    envelope: np.ndarray,
    scores: np.ndarray,
    num_objects: int,
    options: ApOptions,
) -> list[Rank]:
    """The 11 levels of one class: (T,) the places of its true positives among its detections, (T,)
    the largest precision from each on, (K,) the scores of all."""
    num_true = np.arange(1, len(true_at) + 1)
    if options.recall_levels == "exact":
        reached = np.searchsorted(10 * num_true, _LEVELS * num_objects)  # first 10·TP >= i·n
    else:
        levels = FLOAT_LEVELS[options.recall_levels]
        reached = np.searchsorted(num_true / max(num_objects, 1), levels)
    ranks = [
        Rank(level / 10, float(scores[true_at[i]]), float(envelope[i]))
        if i < len(true_at)
        else Rank(level / 10, None, 0.0)
        for level, i in zip(_LEVELS.tolist(), reached.tolist(), strict=True)
    ]
    if len(scores):  # recall 0 is there from the first detection on, true or not
        ranks[0] = ranks[0]._replace(confidence=float(scores[0]))
    return ranks


def _sum(aps: dict[str, float | None]) -> float:
    return math.fsum(ap for ap in aps.values() if ap is not None)
