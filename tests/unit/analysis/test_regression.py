"""Least squares against sums by hand, against scipy's own line, and in its coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssd_dist.analysis.regression import fit_linear, regress


def test_a_line_by_hand():
    # Means 2 and 3; Sxx = 2, Sxy = 3, Syy = 6: slope 1.5, intercept 0; residuals -0.5, 1, -0.5.
    fit = fit_linear([[1, 2, 3]], [1, 4, 4])
    assert fit.slopes[0].value == pytest.approx(1.5)
    assert fit.intercept.value == pytest.approx(0.0)
    assert fit.r2 == pytest.approx(1 - 1.5 / 6)
    # One degree of freedom: t = 12.706; the slope's error is sqrt(1.5 / 2), the intercept's
    # sqrt(1.5 · (1/3 + 4/2)).
    assert fit.slopes[0].high - 1.5 == pytest.approx(12.7062 * np.sqrt(0.75), rel=1e-5)
    assert fit.intercept.high == pytest.approx(12.7062 * np.sqrt(1.5 * (1 / 3 + 2)), rel=1e-5)


def test_a_plane_by_hand():
    # y = 1 + 2a - 3b on four corners, with +d, -d, -d, +d (orthogonal to a, b and 1) on top.
    a, b, d = [0, 1, 0, 1], [0, 0, 1, 1], 0.5
    y = [1 + d, 3 - d, -2 - d, 0 + d]
    fit = fit_linear([a, b], y)
    assert [slope.value for slope in fit.slopes] == pytest.approx([2.0, -3.0])
    assert fit.intercept.value == pytest.approx(1.0)
    # SSE = 4 d² = 1 with one degree of freedom; (XᵀX)⁻¹ has 1 at each slope.
    assert fit.slopes[0].high - 2 == pytest.approx(12.7062, rel=1e-5)
    assert fit.r2 == pytest.approx(1 - 1 / (4 + 9 + 1))


@given(
    points=st.lists(
        st.tuples(st.floats(1e3, 1e10), st.floats(0.1, 1e4)), min_size=4, max_size=30
    ).filter(lambda points: np.all(np.std(points, axis=0) > 0.05 * np.mean(points, axis=0)))
)
@settings(max_examples=50, deadline=None)
def test_agrees_with_scipys_line(points):
    x, y = np.array(points).T
    fit, other = fit_linear([x], y), stats.linregress(x, y)
    slope, intercept = fit.slopes[0], fit.intercept
    scale = 1e-5 * y.max()
    reach = stats.t.ppf(0.975, len(x) - 2)
    assert slope.value * x.std() == pytest.approx(other.slope * x.std(), abs=scale)
    assert intercept.value == pytest.approx(other.intercept, rel=1e-5, abs=scale)
    error = (slope.high - slope.low) / 2 * x.std()
    assert error == pytest.approx(reach * other.stderr * x.std(), abs=scale)
    error = (intercept.high - intercept.low) / 2
    assert error == pytest.approx(reach * other.intercept_stderr, rel=1e-4, abs=scale)
    assert fit.r2 == pytest.approx(other.rvalue**2, abs=1e-6)


def test_agrees_with_the_normal_equations():
    rng = np.random.default_rng(0)
    predictors = rng.normal(5, 2, (2, 12))
    y = 3 + 0.5 * predictors[0] - predictors[1] + rng.normal(0, 0.3, 12)
    design = np.column_stack([np.ones(12), *predictors])
    coefficients = np.linalg.solve(design.T @ design, design.T @ y)
    residuals = y - design @ coefficients
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * (residuals @ residuals) / 9)
    fit = fit_linear(predictors, y)
    estimates = (fit.intercept, *fit.slopes)
    assert [e.value for e in estimates] == pytest.approx(coefficients)
    assert [e.high - e.value for e in estimates] == pytest.approx(errors * stats.t.ppf(0.975, 9))


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.7])
def test_exponents_are_found_within_their_intervals(exponent):
    """The interval holds the truth in about 95 of 100 draws: below 88 has odds of 1 in 400."""
    rng = np.random.default_rng(1)
    x = np.geomspace(1e6, 1e9, 12)
    hits = 0
    for _ in range(100):
        y = 1e-6 * x**exponent * np.exp(rng.normal(0, 0.2, len(x)))
        fit = regress(x, y)
        hits += exponent in fit.exponent
    assert 88 <= hits < 100


def test_a_power_law_without_noise():
    x = [1e6, 2e6, 5e6, 4e7]
    fit = regress(x, [3e-5 * value**0.8 for value in x])
    assert fit.exponent.value == pytest.approx(0.8)
    assert fit.power.r2 == pytest.approx(1.0)
    assert fit.by_power_law(1e7) == pytest.approx(3e-5 * 1e7**0.8)
    assert fit.line.r2 < 1


def test_json_says_both_fits():
    mapping = regress([1, 2, 4], [2, 4, 8]).to_json()
    assert mapping["slope"] == pytest.approx(2)
    assert mapping["intercept"] == pytest.approx(0, abs=1e-12)
    assert mapping["exponent"] == pytest.approx(1)
    assert mapping["factor"] == pytest.approx(2)
    assert (mapping["r2"], mapping["log_r2"]) == (pytest.approx(1), pytest.approx(1))
    for name in ("slope", "intercept", "exponent"):
        low, high = mapping[f"{name}_interval"]
        assert low <= mapping[name] <= high


def test_what_explains_nothing():
    assert fit_linear([[1, 2, 3]], [5, 5, 5]).r2 == 0
    fit = fit_linear([[1, 2, 3, 4]], [1, -1, -1, 1])
    assert fit.r2 == pytest.approx(0)
    assert 0 in fit.slopes[0]


@pytest.mark.parametrize(
    ("predictors", "y", "message"),
    [
        ([[1, 2]], [1, 2], "at least 3 observations, not 2"),
        ([[1, 2, 3], [1, 0, 1]], [1, 2, 3], "at least 4 observations"),
        ([[7, 7, 7]], [1, 2, 3], "same value"),
        ([[1, 2, 3, 4], [2, 4, 6, 8]], [1, 2, 3, 5], "linearly dependent"),
    ],
)
def test_what_can_not_be_fitted(predictors, y, message):
    with pytest.raises(ValueError, match=message):
        fit_linear(predictors, y)


def test_a_power_law_of_nothing():
    with pytest.raises(ValueError, match="above 0, not 0"):
        regress([0, 1, 2], [1, 2, 3])
