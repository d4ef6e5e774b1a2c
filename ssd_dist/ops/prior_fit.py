"""Sizes and aspect ratios of priors from the boxes that they are to match.

K-means with 1 - IoU as the distance (Redmon and Farhadi 2017, section 2), with two differences. The
IoU is that with the prior where it stands, at the centre of a cell, and not laid upon the box: a
small prior on a coarse map fits little. And the clusters are not free: the priors of map k have the
sizes s_k and sqrt(s_k s_{k+1}), and all maps share their ratios, so that the logarithms of widths
and heights are linear in those of sizes and ratios. The mean of a cluster becomes a least-squares
problem in a few unknowns.

Shapes: N boxes, m maps, T kinds of priors (of a size, a ratio and a map), K unknowns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ITERATIONS = 20
_STEPS = (0.3, 0.1, 0.03)
_LEAST_GAIN = 1e-4
_MOST_BOXES = 5_000
"""Of more, every second, third, … is taken."""
_BOUNDS = (0.004, 1.2)
_LEAST_STEP = 1.08
"""Least ratio of two neighbouring sizes or aspect ratios: closer ones are the same prior twice."""
_WANTED_IOU, _PENALTY = 0.6, 10.0
_HELD = 1e-3
"""Weight, in boxes, by which an unknown stays where it is that no box asks to move."""


@dataclass(frozen=True, slots=True)
class PriorFit:
    """What was found, in three digits."""

    scales: tuple[float, ...]
    """(m + 1,): `model.prior_scales`, that of the last map's in-between prior at the end."""
    aspect_ratios: tuple[tuple[float, ...], ...]
    """Of each map."""


def fit_priors(
    boxes_xyxy: np.ndarray,
    centres: Sequence[tuple[np.ndarray, np.ndarray]],
    aspect_ratios: Sequence[Sequence[float]],
    starts: Sequence[Sequence[float]],
    *,
    share_ratios: bool,
) -> PriorFit:
    """The sizes, and if asked the ratios, with the highest mean best IoU that is found.

    The same arguments give the same result.

    Args:
        boxes_xyxy: (N, 4) float64, relative, with an area; N >= 1.
        centres: of each map, finest first, the x of its columns and the y of its rows, relative.
        aspect_ratios: of each map, beside 1, to begin with.
        starts: sizes to begin with beside those that the boxes suggest: m or m + 1 numbers each.
        share_ratios: whether all maps have the same ratios, and they are fitted, too.

    Raises ValueError without boxes.
    """
    if len(boxes_xyxy) == 0:
        raise ValueError("priors can't be fitted: there is no object that counts")
    boxes_xyxy = boxes_xyxy[:: -(-len(boxes_xyxy) // _MOST_BOXES)]
    num_maps = len(centres)
    problem = _Problem(boxes_xyxy, centres, aspect_ratios, share_ratios)
    ratios = np.log(aspect_ratios[0]) if share_ratios else np.zeros(0)
    best, best_worth = None, -math.inf
    for start in (*problem.suggestions(), *starts):
        sizes = [*start, max(1.0, start[-1])][: num_maps + 1]
        unknowns, worth = problem.descend(np.concatenate([np.log(sizes), ratios]))
        if worth > best_worth:
            best, best_worth = unknowns, worth
    assert best is not None
    best = problem.polish(best, best_worth)
    scales = _rounded(np.exp(best[: num_maps + 1]), _BOUNDS[0])
    if share_ratios:
        aspect_ratios = [_rounded(np.exp(best[num_maps + 1 :]), _LEAST_STEP)] * num_maps
    return PriorFit(tuple(scales), tuple(tuple(each) for each in aspect_ratios))


class _Problem:
    """Boxes, and the priors as a function of the unknowns: the logarithms of m + 1 sizes and, where
    maps share them, of the ratios."""

    def __init__(
        self,
        boxes_xyxy: np.ndarray,
        centres: Sequence[tuple[np.ndarray, np.ndarray]],
        aspect_ratios: Sequence[Sequence[float]],
        share_ratios: bool,
    ) -> None:
        self.boxes_xyxy = boxes_xyxy
        self.log_wh = np.log(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
        self.num_sizes = len(centres) + 1
        num_ratios = len(aspect_ratios[0]) if share_ratios else 0
        rows: list[tuple[int, np.ndarray, float]] = []  # map, size's coefficients, fixed ratio
        tilts: list[np.ndarray] = []  # coefficients of half the logarithm of the ratio
        for k, ratios in enumerate(aspect_ratios):
            own = np.eye(self.num_sizes)[k]
            between = (own + np.eye(self.num_sizes)[k + 1]) / 2
            none = np.zeros(num_ratios)
            for size in (own, between):
                rows.append((k, size, 0.0))
                tilts.append(none)
            for j, ratio in enumerate(ratios):
                for sign in (0.5, -0.5):
                    rows.append((k, own, 0.0 if share_ratios else sign * math.log(ratio)))
                    tilts.append(sign * np.eye(num_ratios)[j] if share_ratios else none)
        sizes = np.stack([size for _, size, _ in rows])
        tilt = np.stack(tilts)
        self.matrices = (np.hstack([sizes, tilt]), np.hstack([sizes, -tilt]))
        """(T, K) twice: unknowns → logarithm of the widths, of the heights."""
        fixed = np.array([ratio for _, _, ratio in rows])
        self.offsets = (fixed, -fixed)
        maps = [k for k, _, _ in rows]
        middles = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
        self.nearest = tuple(
            np.stack([_nearest(centres[k][axis], middles[:, axis]) for k in maps], axis=1)
            for axis in (0, 1)
        )
        """(N, T) twice: x and y of the nearest centre, where a prior overlaps most."""

    def suggestions(self) -> list[list[float]]:
        """Sizes at quantiles of the boxes', and evenly spaced between their ends."""
        sizes = np.exp(self.log_wh.mean(axis=1))
        shares = (np.arange(self.num_sizes) + 0.5) / self.num_sizes
        low, high = np.quantile(sizes, (0.02, 0.98))
        spaced = np.geomspace(low, max(high, low * _LEAST_STEP**self.num_sizes), self.num_sizes)
        return [np.quantile(sizes, shares).tolist(), spaced.tolist()]

    def descend(self, unknowns: np.ndarray) -> tuple[np.ndarray, float]:
        """Lloyd's iterations from here; the best unknowns on the way, and their mean best IoU."""
        best, best_worth = unknowns, -math.inf
        for _ in range(_ITERATIONS):
            unknowns = self._ordered(unknowns)
            worth, kinds, weights = self._worth(unknowns)
            if worth > best_worth:
                best, best_worth = unknowns, worth
            after = self._means(kinds, weights, unknowns)
            if np.abs(after - unknowns).max() < 1e-4:
                break
            unknowns = after
        return best, best_worth

    def polish(self, unknowns: np.ndarray, worth: float) -> np.ndarray:
        """Moves one unknown at a time by ever smaller steps, as long as that is worth it: out of
        where the means alone are caught."""
        for step in _STEPS:
            moved = True
            while moved:
                moved = False
                for i in range(len(unknowns)):
                    for sign in (1, -1):
                        tried = unknowns.copy()
                        tried[i] += sign * step
                        tried = self._ordered(tried)
                        tried_worth, _, _ = self._worth(tried)
                        if tried_worth > worth + _LEAST_GAIN:
                            unknowns, worth, moved = tried, tried_worth, True
        return unknowns

    def _worth(self, unknowns: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """What is to be large, and of each box the kind that fits it best (N,) and its weight
        (N,)."""
        ious = self._ious(unknowns)
        best_ious = ious.max(axis=1)
        lacking = np.maximum(_WANTED_IOU - best_ious, 0)
        worth = float(best_ious.mean() - _PENALTY * lacking.mean())
        return worth, ious.argmax(axis=1), 1 + _PENALTY * (lacking > 0)

    def _ordered(self, unknowns: np.ndarray) -> np.ndarray:
        sizes, ratios = unknowns[: self.num_sizes], unknowns[self.num_sizes :]
        low, high = map(math.log, _BOUNDS)
        return np.concatenate(
            [
                _apart(np.sort(np.clip(sizes, low, high))),
                _apart(np.maximum(np.sort(ratios), math.log(_LEAST_STEP))),
            ]
        )

    def _ious(self, unknowns: np.ndarray) -> np.ndarray:
        """(N, T): IoU of each box with the nearest prior of each kind."""
        overlap: np.ndarray | float = 1.0
        prior_area: np.ndarray | float = 1.0
        for axis in (0, 1):
            # As `ops.priors.make_priors` clips them.
            side = np.minimum(np.exp(self.matrices[axis] @ unknowns + self.offsets[axis]), 1.0)
            low = np.maximum(self.nearest[axis] - side / 2, self.boxes_xyxy[:, axis, None])
            high = np.minimum(self.nearest[axis] + side / 2, self.boxes_xyxy[:, axis + 2, None])
            overlap = overlap * np.maximum(high - low, 0)
            prior_area = prior_area * side
        area = np.exp(self.log_wh.sum(axis=1))[:, None]
        ious: np.ndarray = overlap / (prior_area + area - overlap)
        return ious

    def _means(self, kinds: np.ndarray, weights: np.ndarray, unknowns: np.ndarray) -> np.ndarray:
        """The unknowns for which the priors' sides are nearest, in logarithms, to those of the
        boxes that chose them; `kinds`: (N,) each box's."""
        count = np.bincount(kinds, weights, minlength=len(self.offsets[0]))
        normal = _HELD * np.eye(len(unknowns))
        right = _HELD * unknowns
        for axis in (0, 1):
            matrix = self.matrices[axis]
            total = np.bincount(kinds, weights * self.log_wh[:, axis], minlength=len(count))
            normal += matrix.T @ (count[:, None] * matrix)
            right = right + matrix.T @ (total - count * self.offsets[axis])
        return np.linalg.solve(normal, right)


def _nearest(centres: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The nearest of sorted `centres` to each value."""
    right = np.clip(np.searchsorted(centres, values), 1, max(1, len(centres) - 1))
    left = centres[right - 1]
    right_centre = centres[np.minimum(right, len(centres) - 1)]
    return np.where(values - left <= right_centre - values, left, right_centre)


def _apart(logarithms: np.ndarray) -> np.ndarray:
    """Ascending numbers, each moved up to its least distance from the one before."""
    steps = np.arange(len(logarithms)) * math.log(_LEAST_STEP)
    result: np.ndarray = np.maximum.accumulate(logarithms - steps) + steps
    return result


def _rounded(values: np.ndarray, least: float) -> tuple[float, ...]:
    return tuple(max(least, float(f"{value:.3g}")) for value in values)
