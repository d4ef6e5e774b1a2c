"""Least squares with intervals: a straight line, a plane, and a power law as a line in logarithms.

n observations, q predictors. Intervals are at 95 %, by Student's t with n - q - 1 degrees of
freedom: they hold where the deviations are independent, normal and equally large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class LinearFit:
    """y = intercept + Σ slope_j · x_j, by least squares."""

    slopes: tuple[Estimate, ...]
    """One a predictor, in the order they were given."""
    intercept: Estimate
    r2: float
    """R²: the part of y's variance that the fit explains, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Regression:
    """y on one predictor x, as a line and as a power law."""

    line: LinearFit
    """y = intercept + slope · x."""
    power: LinearFit
    """log y = log factor + exponent · log x, natural logarithms."""

    @property
    def exponent(self) -> Estimate:
        """e of y = factor · x^e; a law that is linear and starts at 0 has 1."""
        return self.power.slopes[0]

    def by_power_law(self, x: float) -> float:
        """y at x > 0 as the power law has it: always above 0, unlike the line."""
        return float(np.exp(self.power.intercept.value) * x**self.exponent.value)

    def to_json(self) -> dict[str, Any]:
        """`r2`, `slope`, `intercept` of the line; `exponent`, `factor`, `log_r2` of the power law;
        and as [low, high] `slope_interval`, `intercept_interval`, `exponent_interval`."""
        slope, intercept, exponent = self.line.slopes[0], self.line.intercept, self.exponent
        return {
            "r2": self.line.r2,
            "slope": slope.value,
            "slope_interval": [slope.low, slope.high],
            "intercept": intercept.value,
            "intercept_interval": [intercept.low, intercept.high],
            "exponent": exponent.value,
            "exponent_interval": [exponent.low, exponent.high],
            "factor": float(np.exp(self.power.intercept.value)),
            "log_r2": self.power.r2,
        }


def regress(x: Sequence[float], y: Sequence[float]) -> Regression:
    """Fits y to x twice: by a line, and by a power law.

    Raises ValueError for fewer than three observations, for values that are not above 0, and where
    all x are the same.
    """
    if min(*x, *y) <= 0:
        raise ValueError(f"a power law needs values above 0, not {min(*x, *y):g}")
    return Regression(line=fit_linear([x], y), power=fit_linear([np.log(x)], np.log(y)))


def fit_linear(
    predictors: Sequence[Sequence[float] | np.ndarray], y: Sequence[float] | np.ndarray
) -> LinearFit:
    """Least squares of y (n) on q predictors (n each) and a constant.

    Raises ValueError for fewer than q + 2 observations, and where the predictors and the constant
    are linearly dependent: the slopes are then not determined.
    """
    columns = np.array(predictors, dtype=np.float64).T
    values = np.asarray(y, dtype=np.float64)
    num_values, num_predictors = columns.shape
    degrees = num_values - num_predictors - 1
    if degrees < 1:
        raise ValueError(
            f"a fit of {num_predictors} slopes and an intercept needs at least "
            f"{num_predictors + 2} observations, not {num_values}"
        )
    # Weights and operations are counted in millions and billions: centred and scaled, rounding
    # does no harm, and the intercept becomes the mean.
    means = columns.mean(axis=0)
    scales = columns.std(axis=0)
    if np.any(scales <= 1e-12 * np.abs(means)):
        raise ValueError("a predictor with the same value in every observation explains nothing")
    scaled = (columns - means) / scales
    deviations = values - values.mean()
    solution, _, rank, _ = np.linalg.lstsq(scaled, deviations, rcond=1e-10)
    if rank < num_predictors:
        raise ValueError("the predictors are linearly dependent: their slopes are not determined")

    residual = float(np.sum((deviations - scaled @ solution) ** 2))
    total = float(np.sum(deviations**2))
    variance = residual / degrees
    covariance = variance * np.linalg.inv(scaled.T @ scaled)
    slopes = solution / scales
    slope_errors = np.sqrt(np.diag(covariance)) / scales
    # The intercept is the value at x = 0, `-means / scales` away from the centre.
    origin = -means / scales
    intercept = float(values.mean() + origin @ solution)
    intercept_error = float(np.sqrt(variance / num_values + origin @ covariance @ origin))

    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees))
    return LinearFit(
        slopes=tuple(
            _estimate(value, error, reach)
            for value, error in zip(slopes.tolist(), slope_errors.tolist(), strict=True)
        ),
        intercept=_estimate(intercept, intercept_error, reach),
        r2=1 - residual / total if total > 0 else 0.0,
    )


def _estimate(value: float, error: float, reach: float) -> Estimate:
    return Estimate(value, value - reach * error, value + reach * error)
