"""Whether one configuration is better than another, by trainings with several seeds.

Each configuration has a mean and a sample standard deviation over its seeds. The difference of two
means has Welch's t interval (Welch 1947), which does not take the two deviations to be equal. It is
about the seeds alone: that the pictures of the split are a sample, too, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from ssd_dist.repeated import Repeated, spread

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the mean of some values lies above that of others."""

    difference: float
    standard_error: float
    low: float
    """Lower end of Welch's 95 % interval of the difference."""
    high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The best of a search beside the SSD paper's defaults, both trained with several seeds."""

    validation: Comparison | None
    """None where one of them has fewer than two values."""
    on_split: Comparison | None
    """On the split of a report; None where it was not evaluated."""
    sentence: str
    """What follows, for people."""


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """The difference mean(first) - mean(second) with Welch's interval.

    None where either has fewer than two values. Of values that do not vary at all, the interval is
    the difference itself.
    """
    if min(len(first), len(second)) < 2:
        return None
    difference = fmean(first) - fmean(second)
    of_means = [stdev(values) ** 2 / len(values) for values in (first, second)]
    error = math.sqrt(sum(of_means))
    if error == 0:
        return Comparison(difference, 0.0, difference, difference)
    # The Welch-Satterthwaite equation.
    degrees = error**4 / sum(
        one**2 / (len(values) - 1) for one, values in zip(of_means, (first, second), strict=True)
    )
    margin = error * float(stdtrit(degrees, (1 + CONFIDENCE) / 2))
    return Comparison(difference, error, difference - margin, difference + margin)


def contestants(repeats: Sequence[Repeated]) -> tuple[Repeated | None, Repeated | None]:
    """The best of the search (its own, not the paper's) and the SSD paper's defaults, as far as
    they were trained again. `repeats`: best first."""
    found = next((one for one in repeats if not one.is_paper), None)
    paper = next((one for one in repeats if one.is_paper), None)
    return found, paper


def judge(repeats: Sequence[Repeated], split: str = "test") -> Judgement:
    """Whether the search's best beats the SSD paper's defaults.

    Args:
        repeats: every configuration that was trained again, best first.
        split: what to call the split of `Repeated.split_values`.
    """
    found, paper = contestants(repeats)
    if found is None or paper is None:
        # The paper's defaults are always trained.
        return Judgement(None, None, "The search found nothing but the SSD paper's defaults.")
    validation = compare(found.values, paper.values)
    ours, theirs = found.split_values or (), paper.split_values or ()
    on_split = compare(ours, theirs)
    measured = [
        f"{name} mAP {spread(first)} against {spread(second)} ({_told(comparison)})"
        for name, comparison, first, second in (
            ("validation", validation, found.values, paper.values),
            (split, on_split, ours, theirs),
        )
        if comparison is not None
    ]
    # The split that chose nothing has the last word, where it was measured.
    verdict = _verdict(on_split or validation, split if on_split else "validation")
    sentence = f"{verdict}: {'; '.join(measured)}." if measured else f"{verdict}."
    return Judgement(validation, on_split, sentence)


def _told(comparison: Comparison) -> str:
    return (
        f"difference {comparison.difference:+.3f}, 95 % interval {comparison.low:+.3f} to "
        f"{comparison.high:+.3f}"
    ).replace("-", "−")


def _verdict(comparison: Comparison | None, split: str) -> str:
    if comparison is None:
        return "Too few trainings ended to set the search's best beside the SSD paper's defaults"
    if comparison.low > 0:
        return "The search's best beats the SSD paper's defaults"
    if comparison.high < 0:
        return "The search's best falls behind the SSD paper's defaults"
    if comparison.difference > 0:
        return (
            "The search's best is ahead of the SSD paper's defaults, but so few seeds do not prove "
            f"it on {split}"
        )
    return "The search's best does not beat the SSD paper's defaults"
