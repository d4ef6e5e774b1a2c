"""Where hyperparameters and mAP lie on their axes."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_dist.report.axes import map_limits, map_scale, scale_of

numbers = st.lists(
    st.one_of(st.integers(-50, 50), st.floats(1e-9, 1e9), st.floats(-1e3, 1e3)), min_size=1
)


@given(numbers)
def test_larger_values_lie_further_and_all_in_sight(values):
    scale = scale_of(values)
    assert all(0 <= position <= 1 for position in scale.positions)
    assert all(-1e-9 <= tick <= 1 + 1e-9 for tick in scale.ticks)
    assert len(scale.ticks) == len(scale.labels) <= 8
    by_value = sorted(zip(values, scale.positions, strict=True))
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(by_value))


def test_a_wide_range_is_logarithmic():
    scale = scale_of([1e-4, 1e-3, 1e-2])
    first, middle, last = scale.positions
    assert middle - first == pytest.approx(last - middle)
    assert scale.labels == ("10⁻⁴", "10⁻³", "10⁻²")
    assert scale.ticks == pytest.approx(scale.positions)


def test_less_than_two_powers_of_ten_have_more_ticks():
    assert scale_of([0.01, 0.09]).labels == ("0.01", "0.1")
    assert scale_of([1.5e-5, 9e-5]).labels == ("3·10⁻⁵", "10⁻⁴")


def test_a_narrow_range_and_one_with_zero_are_linear():
    for values in ([1.0, 2.0, 3.0], [0, 5, 10]):
        first, middle, last = scale_of(values).positions
        assert middle - first == pytest.approx(last - middle)


def test_names_stand_side_by_side():
    scale = scale_of(["none", "batch", "none", True])
    assert scale.labels == ("True", "batch", "none")
    assert scale.positions == pytest.approx([5 / 6, 1 / 2, 5 / 6, 1 / 6])


def test_nothing_has_no_scale():
    assert scale_of([]) == scale_of(())
    assert scale_of([]).ticks == ()


def test_one_value_lies_in_the_middle():
    assert scale_of([3]).positions == pytest.approx([0.5])
    assert scale_of([0.0]).positions == pytest.approx([0.5])


@given(st.lists(st.floats(0, 1), min_size=1))
def test_the_best_map_is_always_in_sight(values):
    low, high = map_limits(values)
    assert low <= max(values) <= high + 1e-9
    assert 0.15 <= high - low <= 0.55
    assert math.isclose(10 * low, round(10 * low), abs_tol=1e-6)
    scale = map_scale(values)
    assert all(0 <= position <= 1 + 1e-6 for position in scale.positions)


def test_failures_do_not_press_the_others_together():
    assert map_limits([0.86, 0.85, 0.69, 0.01]) == pytest.approx((0.5, 0.9))
    assert map_limits([0.86, 0.84]) == pytest.approx((0.7, 0.9))
    assert map_scale([0.9, 0.01]).positions[1] == 0
