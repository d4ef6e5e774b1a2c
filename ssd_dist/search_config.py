"""What is searched, and how: the space, the sampler, the pruner, the objectives."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=1)]

SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
PrunerName = Literal["asha", "median", "none"]
Objective = Literal["map_11pt", "ms_per_image"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Range:
    """A search range: `low` to `high`, uniform in the logarithm where `log`; or `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("give either a non-empty list of choices, or low and high")
        elif self.low is None or self.high is None:
            raise ValueError("a range needs both low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        elif self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, not {self.low}")
        elif self.integer and (self.low % 1 or self.high % 1):
            raise ValueError(f"an integer range needs whole ends, not {self.low} and {self.high}")

    @property
    def bounds(self) -> tuple[float, float]:
        """`low` and `high` of a range that is no list of choices."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    def examples(self) -> tuple[Any, ...]:
        """Values that stand for all: every choice, or both ends and one between them."""
        if self.choices is not None:
            return self.choices
        low, high = self.bounds
        values = (low, low + 0.618 * (high - low), high)
        return tuple(map(int, values)) if self.integer else values

    def admitted(self, value: Any) -> Any:
        """`value` as a trial takes it; a number that YAML read as text, such as 1e-3, as a number.

        Raises ValueError for a value that is not in the range.
        """
        if self.choices is not None:
            for choice in self.choices:
                if choice == value:
                    return choice  # as it is written there: 3 for 3.0
            raise ValueError(
                f"{value!r} is none of the choices {', '.join(map(repr, self.choices))}"
            )
        low, high = self.bounds
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{value!r} is no number") from None
        if not low <= number <= high:
            raise ValueError(f"{value!r} is not within {low:g} to {high:g}")
        if not self.integer:
            return number
        if number % 1:
            raise ValueError(f"{value!r} is no whole number")
        return int(number)

    def nearest(self, value: Any) -> Any:
        """The value of the range that is nearest to `value`; None where nearness means nothing: for
        a category that is none of the choices."""
        if self.choices is not None:
            if value in self.choices:
                return self.admitted(value)
            if not all(_is_number(one) for one in (value, *self.choices)):
                return None
            return min(self.choices, key=lambda choice: abs(choice - value))
        if not _is_number(value):
            return None
        low, high = self.bounds
        inside = min(max(value, low), high)
        return round(inside) if self.integer else float(inside)

    def grid(self, num_points: int | None) -> tuple[Any, ...]:
        """The range's values on a grid: every choice, or `num_points` values from `low` to `high`
        at equal distances (of the logarithm, where `log`), each whole number once at most. None:
        every whole number of an integer range.

        Raises ValueError for a continuous range without `num_points`.
        """
        if self.choices is not None:
            return self.choices
        low, high = self.bounds
        if num_points is None:
            if not self.integer:
                raise ValueError("a continuous range needs search.num_grid_points, or choices")
            return tuple(range(int(low), int(high) + 1))
        steps = [i / (num_points - 1) for i in range(num_points)]
        values = [low * (high / low) ** s if self.log else low + (high - low) * s for s in steps]
        values[-1] = high  # not a rounding error above it
        return tuple(dict.fromkeys(map(round, values))) if self.integer else tuple(values)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RepeatsConfig:
    """What is trained again once a search has ended: its best configurations and, beside them, the
    SSD paper's defaults, in full and with several seeds each. The best mean wins."""

    top_k: Annotated[int, Field(ge=0)] = 2
    """The search's best configurations, as many of them as are repeated beside the paper's; of
    several objectives the most accurate on the Pareto front. 0: nothing is repeated, and the best
    trial wins as it is."""
    num_seeds: Annotated[int, Field(ge=3)] = 3
    """Trainings of each, with seeds that the search has not used."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SearchConfig:
    """What Ray Tune and Optuna search, and how trials are stopped early."""

    space: dict[str, Range] = dataclasses.field(
        default_factory=lambda: {
            "alpha": Range(low=0.1, high=10.0, log=True),
            "l2_lambda": Range(low=1e-6, high=1e-2, log=True),
            "lr": Range(low=1e-4, high=1e-1, log=True),
        }
    )
    """Field of the configuration (dots for nesting, `loss.neg_pos_ratio`) → its range."""
    trials: Count = 12
    """Trials in all, the first points among them."""
    sampler: SamplerName = "tpe"
    """What proposes the trials. `tpe`: tree-structured Parzen estimator, multivariate (Bergstra et
    al. 2011). `gp`: Gaussian process with expected improvement; learns from complete trials only.
    `cmaes`: CMA-ES (Hansen 2016); draws categorical fields at random. `random`. `grid`: every point
    of a grid, in an order drawn by the seed, at most `trials` of them."""
    num_grid_points: Annotated[int, Field(ge=2)] | None = None
    """Values that `grid` takes of each range of numbers, both ends among them; null: every whole
    number of an integer range, and a continuous one is refused."""
    first_points: tuple[dict[str, Any], ...] = ()
    """Points to try first, each searched field → value, after the configuration's own values and
    before the SSD paper's. What a point leaves out, the sampler draws (`grid`: at random)."""
    pruner: PrunerName = "asha"
    """What stops weak trials early. `asha`: asynchronous successive halving (Li et al. 2020).
    `median`: a trial whose best value is below the median of the others' at the same epoch.
    `none`: every trial runs all its epochs."""
    grace_epochs: Count = 2
    """Epochs that every trial is given before it may be stopped."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA goes on with the best 1 in this many at each rung."""
    objectives: tuple[Objective, ...] = ("map_11pt",)
    """`map_11pt`: validation mAP, maximised. With `ms_per_image` beside it, the time of a picture,
    minimised: the search then looks for the Pareto front of both, and stops no trial early."""
    repeats: RepeatsConfig = RepeatsConfig()

    def __post_init__(self) -> None:
        if "map_11pt" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                "objectives: give map_11pt, or map_11pt and ms_per_image, not "
                f"{', '.join(self.objectives) or 'none'}"
            )
        for number, point in enumerate(self.first_points):
            for path, value in point.items():
                if path not in self.space:
                    raise ValueError(f"first_points[{number}]: {path!r} is not in the search space")
                try:
                    self.space[path].admitted(value)
                except ValueError as error:
                    raise ValueError(f"first_points[{number}]: {path}: {error}") from None
        if self.sampler == "grid":
            for path, values in self.space.items():
                try:
                    values.grid(self.num_grid_points)
                except ValueError as error:
                    raise ValueError(f"sampler grid: {path}: {error}") from None
        if self.sampler == "cmaes":
            num_numeric = sum(values.choices is None for values in self.space.values())
            if num_numeric < 2:
                raise ValueError(
                    "sampler cmaes: CMA-ES adapts the covariance of at least 2 ranges of numbers, "
                    f"and the space has {num_numeric}"
                )
            if len(self.objectives) > 1:
                raise ValueError(
                    "sampler cmaes: CMA-ES has one objective; take tpe or gp for "
                    f"{' and '.join(self.objectives)}"
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
