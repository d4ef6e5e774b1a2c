"""How far mAP could have come out otherwise: a bootstrap interval over pictures.

The pictures of the split are drawn anew, as many as there are, with replacement, and the mAP of
each such resample is computed. A picture that is drawn twice counts as two pictures with the same
objects and detections.

11-point AP is a mean of largest precisions, which repeated pictures tend to raise: most resamples
of a small split lie above its mAP, and their middle 95 % lie above the truth far more often than
in 2.5 % of cases. So the percentiles are corrected for that bias (Efron 1987; Efron and Tibshirani
1993, chapter 14, with an acceleration of 0): where the share p of the values lies below the mAP of
the split, z0 = Φ⁻¹(p), and the interval reaches from the Φ(2·z0 - 1.96) quantile of the values to
that of Φ(2·z0 + 1.96); p = 1/2 gives the middle 95 %. On a few dozen pictures that takes half of
the excess away; the rest comes from the mAP itself, which is too high on average there.

What is found in a picture does not depend on the others, and the order of the scores does not
change: both are worked out once. A resample is then a weight for each picture, and its precision
and recall are weighted counts along that order. They are needed at the true positives only, since
precision is largest at one of them; behind the last of a class nothing counts.

T true positives over all classes, by class and falling score; C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ssd_dist.evaluation.assignment import assign
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import DetectionTable, ObjectTable
from ssd_dist.evaluation.voc_ap import FLOAT_LEVELS, NUM_LEVELS

_NORMAL = NormalDist()
_REACH = _NORMAL.inv_cdf(0.975)


class Interval(NamedTuple):
    """Where a measure would lie in 95 of 100 splits drawn as this one was."""

    low: float
    high: float


def bootstrap_map(
    objects: ObjectTable,
    detections: DetectionTable,
    num_classes: int,
    *,
    options: ApOptions = PRESETS["exact"],
    num_resamples: int = 1000,
    seed: int = 0,
    num_images: int | None = None,
) -> Interval:
    """95 % interval of the 11-point mAP of a split, its pictures resampled with replacement; it
    holds the mAP itself.

    The mAP of a resample is what `options` say of a split with the pictures really repeated, equal
    scores in the order of the tables; with `exact` its mean is over the classes that occur in the
    resample. Resamples without any object are left out. `num_images` counts all pictures of the
    split, also those with neither objects nor detections; None: up to the last that has one. The
    same `seed` and order of pictures give the same interval.

    Raises ValueError if there is no object to be found, or `num_resamples` or `num_images` is too
    small.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, not {num_resamples}")
    last = int(max(objects.images.max(initial=-1), detections.images.max(initial=-1)))
    num_images = last + 1 if num_images is None else num_images
    if num_images <= last:
        raise ValueError(f"num_images is {num_images}, but the tables speak of {last + 1} pictures")
    counts = np.flatnonzero(counts_in_recall(objects, options))
    if not counts.size:
        raise ValueError(
            "no picture has an object that counts: average precision has no meaning without one"
        )
    object_images, object_classes = objects.images[counts], objects.labels[counts] - 1

    assignment = assign(objects, detections, options=options)
    order = assignment.order[~assignment.ignored[assignment.order]]
    ranking = rank_true_positives(
        detections.labels[order], assignment.true_positive[order], num_classes
    )
    images = detections.images[order[ranking.counted]]
    true_images = images[ranking.true_positives]
    segments = np.append(0, ranking.true_positives + 1)[:-1]  # each ends with a true positive

    def map_of(weights: np.ndarray) -> float:
        """mAP where each picture stands as often as its weight says; NaN without an object."""
        num_objects = np.bincount(
            object_classes, weights=weights[object_images], minlength=num_classes
        ).astype(np.int64)
        if not num_objects.any():
            return math.nan
        num_counted = np.add.reduceat(weights[images], segments) if len(segments) else segments
        aps = average_precisions(
            np.cumsum(weights[true_images], dtype=np.int64),
            np.cumsum(num_counted, dtype=np.int64),
            ranking.bounds,
            num_objects,
            options,
        )
        return mean_ap(aps, num_objects, options)

    rng = np.random.default_rng(seed)
    maps = np.empty(num_resamples)
    for i in range(num_resamples):  # one by one: nothing larger than the detections is held
        drawn = rng.integers(num_images, size=num_images)
        maps[i] = map_of(np.bincount(drawn, minlength=num_images).astype(np.int32))
    maps = maps[~np.isnan(maps)]
    if not maps.size:
        raise ValueError(f"none of the {num_resamples} resamples has an object; draw more of them")
    return bias_corrected(maps, map_of(np.ones(num_images, dtype=np.int32)))


def bias_corrected(values: np.ndarray, estimate: float) -> Interval:
    """95 % interval of a measure: its bias-corrected percentiles, see above.

    Args:
        values: (R,), of the resamples, at least one.
        estimate: of the split as it stands. Values equal to it count half as below it. Where hardly
            any is, or all are, the percentiles lie beside it, and the interval is widened to it.
    """
    below = np.count_nonzero(values < estimate) + np.count_nonzero(values == estimate) / 2
    share = min(max(below, 0.5), len(values) - 0.5) / len(values)  # of 0 and 1 there is no quantile
    bias = _NORMAL.inv_cdf(share)
    levels = [_NORMAL.cdf(2 * bias - _REACH), _NORMAL.cdf(2 * bias + _REACH)]
    low, high = np.quantile(values, levels)
    return Interval(min(float(low), estimate), max(float(high), estimate))


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What 11-point AP needs of detections that lie by class and by falling score."""

    counted: np.ndarray
    """Positions of the detections up to the last true positive of each class."""
    true_positives: np.ndarray
    """(T,) int64: where in `counted` the true positives are."""
    bounds: np.ndarray
    """(C+1,) int64: those of class i are `true_positives[bounds[i - 1] : bounds[i]]`."""


def rank_true_positives(labels: np.ndarray, true_positive: np.ndarray, num_classes: int) -> Ranking:
    """From the labels and verdicts of detections by class and falling score, ignored ones left
    out."""
    at = np.flatnonzero(true_positive)
    bounds = np.searchsorted(labels[at], np.arange(1, num_classes + 2))
    last = np.full(num_classes, -1)
    occurs = bounds[1:] > bounds[:-1]
    last[occurs] = at[bounds[1:][occurs] - 1]
    counted = np.flatnonzero(np.arange(len(labels)) <= last[labels - 1])
    return Ranking(counted, np.flatnonzero(true_positive[counted]), bounds)


def average_precisions(
    num_true: np.ndarray,
    num_counted: np.ndarray,
    bounds: np.ndarray,
    num_objects: np.ndarray,
    options: ApOptions,
) -> np.ndarray:
    """(C,) float64: 11-point AP of every class (Eq. 4-6), 0 where `num_objects` (C,) is 0.

    `num_true` and `num_counted`, (T,) int64, are the numbers of true positives and of all counted
    detections up to each true positive, both running on over the classes; `bounds` (C+1,) is where
    each class begins and ends. They may be weighted: what has the weight 0 is as if it were not
    there, since its precision is no larger than that before it.
    """
    starts, stops = bounds[:-1], bounds[1:]
    true_before = np.append(0, num_true)[starts]
    counted_before = np.append(0, num_counted)[starts]
    true_here = num_true - np.repeat(true_before, stops - starts)
    counted_here = num_counted - np.repeat(counted_before, stops - starts)
    precision = true_here / np.maximum(counted_here, 1)

    reached = np.searchsorted(num_true, true_before[:, None] + _num_needed(num_objects, options))
    reached = np.clip(reached, starts[:, None], stops[:, None])
    # From where a level is reached to where the next one is; the last to the end of the class.
    best = np.maximum.reduceat(np.append(precision, 0.0), reached.ravel()).reshape(reached.shape)
    best[reached == stops[:, None]] = 0.0  # never reached
    best = np.maximum.accumulate(best[:, ::-1], axis=1)
    return np.array([math.fsum(levels) / NUM_LEVELS for levels in best.tolist()])


def _num_needed(num_objects: np.ndarray, options: ApOptions) -> np.ndarray:
    """(C, 11) int64: the fewest true positives that reach each recall level."""
    n = num_objects[:, None]
    if options.recall_levels == "exact":  # 10·TP >= i·n
        return -(-np.arange(NUM_LEVELS) * n // 10)
    levels = FLOAT_LEVELS[options.recall_levels]
    needed = np.maximum(np.ceil(levels * n).astype(np.int64) - 1, 0)  # right, or 1 or 2 too few
    for _ in range(2):
        needed += needed / np.maximum(n, 1) < levels
    return needed


def counts_in_recall(objects: ObjectTable, options: ApOptions) -> np.ndarray:
    """(N,) bool: the objects whose number recall is divided by."""
    return ~objects.difficult | options.count_difficult | options.difficult_in_recall


def mean_ap(aps: np.ndarray, num_objects: np.ndarray, options: ApOptions) -> float:
    """The mean over the classes that have an object, or over all if the options say so."""
    in_mean = aps if options.mean_over == "all" else aps[num_objects > 0]
    return math.fsum(in_mean.tolist()) / len(in_mean)
