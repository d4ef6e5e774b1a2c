"""What it costs by count to get from the network's output to the detections of one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_dist.analysis.layers import Cost, total, with_intensity
from ssd_dist.config import PostprocessConfig

_FLOAT, _DOUBLE, _INDEX = 4, 8, 8
"""Bytes; non-maximum suppression works in float64."""


@dataclass(frozen=True, slots=True)
class PostprocessingCost:
    """Post-processing of one picture. Nothing of it counts into Eq. 3."""

    num_priors: int
    """P."""
    num_candidates: int
    """K: the highest-scoring (prior, class) pairs, which are decoded and enter NMS."""
    max_ious: int
    """Bound of NMS: each pair of candidates once, K(K - 1)/2, reached where none suppresses any."""
    softmax: Cost
    top_k: Cost
    decoding: Cost
    """From priors and offsets to boxes, of the candidates alone."""
    nms: Cost
    """At its bound."""

    @property
    def cost(self) -> Cost:
        """All of it."""
        return total([self.softmax, self.top_k, self.decoding, self.nms])

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers, with intensities."""
        steps = ("softmax", "top_k", "decoding", "nms")
        return {
            "num_priors": self.num_priors,
            "num_candidates": self.num_candidates,
            "max_ious": self.max_ious,
            **{step: with_intensity(getattr(self, step)) for step in steps},
        }


def count_postprocessing(
    num_priors: int, num_outputs: int, config: PostprocessConfig
) -> PostprocessingCost:
    """Counts the steps of `ops.postprocess.detect` on one picture, at most.

    Args:
        num_priors: P.
        num_outputs: C + 1 class scores a prior, the background's among them.
        config: the number of candidates.
    """
    num_scores = num_priors * num_outputs
    num_pairs = num_priors * (num_outputs - 1)
    num_candidates = (
        min(config.max_candidates, num_pairs)
        if config.candidates_of == "image"
        else min(config.max_candidates, num_priors) * (num_outputs - 1)
    )
    max_ious = num_candidates * (num_candidates - 1) // 2
    box = 4 * _FLOAT
    return PostprocessingCost(
        num_priors=num_priors,
        num_candidates=num_candidates,
        max_ious=max_ious,
        # A maximum, a difference, exp, a sum and a quotient; then the objects' scores are copied.
        softmax=Cost(
            0, 5 * num_scores, (num_scores + num_pairs) * _FLOAT, (num_scores + num_pairs) * _FLOAT
        ),
        # One comparison with the threshold of selection each; sorting K of them is small beside it.
        top_k=Cost(0, num_pairs, num_pairs * _FLOAT, num_candidates * (_FLOAT + _INDEX)),
        # Centre 6, size 8, corners 6, limits 8; reads offsets and priors.
        decoding=Cost(0, 28 * num_candidates, 2 * box * num_candidates, box * num_candidates),
        # An IoU: two maxima, two minima, two differences, two limits at 0, three products and sums
        # of areas, a quotient and a comparison.
        nms=Cost(
            0,
            13 * max_ious,
            num_candidates * 5 * _DOUBLE,
            num_candidates * _INDEX,
        ),
    )
