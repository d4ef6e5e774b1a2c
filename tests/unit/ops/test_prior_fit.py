"""Priors from boxes: found again where they are known, and never worse than what was there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_dist.data.coverage import best_prior_iou
from ssd_dist.ops.prior_fit import _Problem, fit_priors
from ssd_dist.ops.priors import make_priors

SIZES = ((16, 16), (8, 8), (4, 4))
CENTRES = [((np.arange(c) + 0.5) / c, (np.arange(r) + 0.5) / r) for r, c in SIZES]


def boxes(sizes, aspects, count=300, seed=0):
    """Boxes of these sizes (square root of the area) and aspects, anywhere in the picture."""
    rng = np.random.default_rng(seed)
    size, aspect = rng.choice(sizes, count), np.sqrt(rng.choice(aspects, count))
    wh = np.stack([size * aspect, size / aspect], 1) * rng.uniform(0.95, 1.05, (count, 1))
    low = rng.uniform(0, 1 - np.minimum(wh, 0.999))
    return np.concatenate([low, low + wh], 1)


def fit(boxes_xyxy, ratios=(2.0,), starts=((0.1, 0.3, 0.6),), share_ratios=True):
    return fit_priors(boxes_xyxy, CENTRES, [ratios] * 3, starts, share_ratios=share_ratios)


def test_ious_are_those_of_the_priors():
    """The nearest centre stands for all of a map."""
    some = boxes([0.05, 0.2, 0.5, 0.9], [1, 0.3, 4])
    unknowns = np.log([0.1, 0.25, 0.6, 1.0, 2.5])
    problem = _Problem(some, CENTRES, [(2.5,)] * 3, share_ratios=True)
    priors = make_priors(SIZES, (0.1, 0.25, 0.6, 1.0), [(2.5,)] * 3)
    expected = best_prior_iou(torch.from_numpy(some).float(), priors).numpy()
    np.testing.assert_allclose(problem._ious(unknowns).max(axis=1), expected, atol=1e-5)
    fixed = _Problem(some, CENTRES, [(2.5,)] * 3, share_ratios=False)
    np.testing.assert_allclose(fixed._ious(unknowns[:4]), problem._ious(unknowns), atol=1e-12)


def test_known_shapes_are_found_again():
    """Of boxes that stand at the centres of cells, where a prior can fit them wholly."""
    shapes = [(0.1, 1.0), (0.1, 3.0), (0.1, 1 / 3), (0.24, 1.0), (0.24, 3.0), (0.24, 1 / 3)]
    middles = np.array([(x, y) for x in CENTRES[1][0][2:6] for y in CENTRES[1][1][2:6]])
    fine = np.array([(x, y) for x in CENTRES[0][0][4:12] for y in CENTRES[0][1][4:12]])
    parts = []
    for size, aspect in shapes:
        at = fine if size == 0.1 else middles
        half = np.array([size * aspect**0.5, size / aspect**0.5]) / 2
        parts.append(np.concatenate([at - half, at + half], 1))
    found = fit(np.concatenate(parts))
    assert found.scales[:2] == pytest.approx((0.1, 0.24), rel=0.02)
    assert found.aspect_ratios[0][0] == pytest.approx(3, rel=0.02)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.floats(0.02, 0.9), min_size=1, max_size=4),
    aspects=st.lists(st.floats(0.4, 2.5), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_found_priors_can_be_made_and_are_no_worse_than_the_start(sizes, aspects, seed):
    some = boxes(sizes, aspects, count=40, seed=seed)
    some = some[(some[:, 2:] <= 1).all(axis=1)]
    if len(some) == 0:
        return
    found = fit(some, ratios=(1.5, 2.5))
    assert len(found.scales) == 4
    assert all(a < b for a, b in zip(found.scales, found.scales[1:], strict=False))
    assert 1 < found.aspect_ratios[0][0] < found.aspect_ratios[0][1]
    wanted = np.maximum(0.6 - best(some, found.scales, found.aspect_ratios[0]), 0).mean()
    start = np.maximum(0.6 - best(some, (0.1, 0.3, 0.6), (1.5, 2.5)), 0).mean()
    assert wanted <= start + 0.005  # but for the rounding to three digits


def best(boxes_xyxy, scales, ratios):
    priors = make_priors(SIZES, scales, [ratios] * 3)
    return best_prior_iou(torch.from_numpy(boxes_xyxy).float(), priors).numpy()


def test_the_same_boxes_give_the_same_numbers():
    some = boxes([0.1, 0.4], [1, 2])
    assert fit(some) == fit(some.copy())


def test_ratios_of_given_heads_stay():
    ratios = [(2.0,), (2.0, 3.0), (2.0,)]
    found = fit_priors(boxes([0.2], [4]), CENTRES, ratios, [], share_ratios=False)
    assert found.aspect_ratios == tuple(ratios)


def test_no_boxes():
    with pytest.raises(ValueError, match="there is no object that counts"):
        fit(np.zeros((0, 4)))
