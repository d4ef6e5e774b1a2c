"""The exported resize is evaluation's, bit for bit."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_dist.data.single import network_input
from ssd_dist.export.resize import DynamicResize, FixedResize, trimmed_taps

SIDES = st.integers(min_value=1, max_value=260)


def batch(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def noise(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(height=SIDES, width=SIDES, side=st.integers(32, 150), seed=st.integers(0, 9))
def test_fixed_resize_is_that_of_evaluation(height, width, side, seed):
    picture = noise(seed, height, width)
    resized = FixedResize(width, height, side)(batch(picture))
    assert torch.equal(resized[0], network_input(picture, side))


@settings(deadline=None, max_examples=60)
@given(height=SIDES, width=SIDES, side=st.integers(32, 150), seed=st.integers(0, 9))
def test_dynamic_resize_is_that_of_evaluation(height, width, side, seed):
    picture = noise(seed, height, width)
    resized = DynamicResize(side)(batch(picture))[0].int()
    gap = (resized - network_input(picture, side).int()).abs().max()
    # Of much higher than wide pictures Pillow rounds the other axis first.
    assert gap <= (0 if height <= 2 * width else 2)


def test_a_picture_of_the_networks_size_stays_as_it_is():
    picture = batch(noise(0, 64, 64))
    assert FixedResize(64, 64, 64).passes == []
    assert torch.equal(DynamicResize(64)(picture), picture)


def test_halving_takes_the_triangle_of_four_pixels():
    # The middle pixel of 8 → 4: centre 3, support 2, weights 1/8, 3/8, 3/8, 1/8.
    taps = trimmed_taps(8, 4, bits=8)
    row = taps.index[1].tolist(), taps.weight[1].tolist()
    assert row == ([1, 2, 3, 4], [32, 96, 96, 32])
