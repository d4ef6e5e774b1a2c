"""Priors: against values worked by hand and torchvision's generator."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

from ssd_dist.ops.priors import evenly_spaced_scales, make_priors, num_priors_per_cell

SSD300_SIZES = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
SSD300_RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
SSD300_SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
SSD300_STEPS = [8, 16, 32, 64, 100, 300]


def torchvision_priors(generator, sizes, image_size):
    return generator._grid_default_boxes([list(s) for s in sizes], [image_size, image_size])


def test_equal_to_torchvision_for_ssd300():
    ours = make_priors(
        SSD300_SIZES, SSD300_SCALES, SSD300_RATIOS, steps=SSD300_STEPS, image_size=300
    )
    generator = DefaultBoxGenerator(SSD300_RATIOS, scales=SSD300_SCALES, steps=SSD300_STEPS)
    assert ours.shape == (8732, 4)
    assert torch.equal(ours, torchvision_priors(generator, SSD300_SIZES, 300))


def test_equal_to_torchvision_for_ssdlite320():
    sizes = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    ratios = [[2, 3]] * 6
    ours = make_priors(sizes, evenly_spaced_scales(6, 0.2, 0.95), ratios)
    generator = DefaultBoxGenerator(ratios, min_ratio=0.2, max_ratio=0.95)
    assert ours.shape == (3234, 4)
    assert torch.equal(ours, torchvision_priors(generator, sizes, 320))


def test_without_clipping_equal_to_torchvision():
    ours = make_priors([(2, 3)], [0.9], [[3]], clip=False)
    generator = DefaultBoxGenerator([[3]], scales=[0.9, 1.0], clip=False)
    assert torch.equal(ours, torchvision_priors(generator, [(2, 3)], 64))
    assert ours[:, 2].max() > 1


def test_one_row_of_two_cells_by_hand():
    priors = make_priors([(1, 2)], [0.2, 0.45], [[4.0]])
    between = math.sqrt(0.2 * 0.45)  # 0.3
    sizes = [(0.2, 0.2), (between, between), (0.4, 0.1), (0.1, 0.4)]
    expected = [(cx, 0.5, w, h) for cx in (0.25, 0.75) for w, h in sizes]
    torch.testing.assert_close(priors, torch.tensor(expected))


def test_scales_follow_equation_4_of_the_paper():
    assert evenly_spaced_scales(6, 0.2, 0.9) == pytest.approx(
        (0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.0)
    )
    assert evenly_spaced_scales(1, 0.2, 0.9) == (0.2, 0.9)
    assert evenly_spaced_scales(2, 0.2, 1.2) == (0.2, 1.2, 1.2)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    ratios=st.lists(st.floats(1.1, 6), max_size=2, unique_by=lambda r: round(r, 3)),
    smallest=st.floats(0.01, 0.5),
)
def test_priors_are_inside_their_limits_and_as_many_as_told(sizes, ratios, smallest):
    per_map = [ratios] * len(sizes)
    priors = make_priors(sizes, evenly_spaced_scales(len(sizes), smallest, 0.9), per_map)
    per_cell = num_priors_per_cell(per_map)
    assert len(priors) == sum(h * w * k for (h, w), k in zip(sizes, per_cell, strict=True))
    assert priors.dtype == torch.float32
    assert ((priors[:, :2] > 0) & (priors[:, :2] < 1)).all()
    assert ((priors[:, 2:] > 0) & (priors[:, 2:] <= 1)).all()
    # The centres of a map divide the image evenly, so their mean is the middle of the image.
    torch.testing.assert_close(priors[:, :2].mean(0), torch.full((2,), 0.5), rtol=0, atol=1e-5)


def test_wrong_number_of_scales_names_the_maps():
    with pytest.raises(ValueError, match=r"2 feature maps \(4x4, 2x2 cells\) need 2 .* got 4"):
        make_priors([(4, 4), (2, 2)], [0.1, 0.2, 0.3, 0.4], [[2], [2]])


@pytest.mark.parametrize("ratios", [[1.0], [2.0, 0.5], [3.0, 3.0]])
def test_repeated_priors_are_refused(ratios):
    with pytest.raises(ValueError, match="map 1 repeat a prior"):
        make_priors([(4, 4), (2, 2)], [0.1, 0.2], [[2.0], ratios])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [0.0, 0.2]}, "above 0"),
        ({"aspect_ratios": [[2]]}, "2 lists of aspect ratios, not 1"),
        ({"steps": [8, 16]}, "go together"),
        ({"steps": [8], "image_size": 32}, "go together"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    valid = {"feature_sizes": [(4, 4), (2, 2)], "scales": [0.1, 0.2], "aspect_ratios": [[2], [2]]}
    with pytest.raises(ValueError, match=message):
        make_priors(**{**valid, **arguments})


def test_sizes_that_do_not_grow_are_refused():
    with pytest.raises(ValueError, match=r"from 0\.9 to 0\.2"):
        evenly_spaced_scales(5, 0.9, 0.2)
