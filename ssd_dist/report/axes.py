"""Axes that several plots have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

STEPS = [1, 2, 5, 10]
_MAX_TICKS = 5
_LOGARITHMIC_FROM = 5.0
"""Largest value by smallest from which on an axis is logarithmic."""
_MAP_IN_SIGHT = 0.35
"""How far below the best a trial's mAP may lie and still be in a plot."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the values of a hyperparameter lie on an axis that runs from 0 to 1."""

    positions: tuple[float, ...]
    """Of the values that it was made for."""
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    """Of the ticks."""


def scale_of(values: Sequence[Any]) -> Scale:
    """The scale for these values: logarithmic where they are positive and span more than a factor
    of 5, else linear; values that are not numbers stand side by side, sorted by name."""
    if not values:
        return Scale((), (), ())
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        names = sorted({str(value) for value in values})
        place = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
        return Scale(
            tuple(place[str(value)] for value in values),
            tuple(place.values()),
            tuple(map(plain_text, names)),
        )
    low, high = float(min(values)), float(max(values))
    along: Callable[[float], float] = float
    if low > 0 and high > _LOGARITHMIC_FROM * low:
        ends = low / 1.4, high * 1.4
        ticks = _round_numbers(*ends)
        labels, along = _power_labels(ticks), math.log
    else:
        margin = 0.08 * (high - low) or 0.5 * abs(high) or 1.0
        ends = low - margin, high + margin
        candidates = MaxNLocator(_MAX_TICKS, steps=STEPS).tick_values(*ends)
        ticks = [float(tick) for tick in candidates if ends[0] <= tick <= ends[1]]
        labels = [f"{tick:g}" for tick in ticks]
    first, last = map(along, ends)
    return Scale(
        tuple((along(value) - first) / (last - first) for value in values),
        tuple((along(tick) - first) / (last - first) for tick in ticks),
        tuple(labels),
    )


def show_scale(axes: Axes, which: Literal["x", "y"], scale: Scale) -> None:
    """Makes the x or y axis that of a scale."""
    axes.set(**{f"{which}lim": (0, 1)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(list(scale.ticks), list(scale.labels))


def unit_range(set_limits: Callable[..., Any], set_ticks: Callable[..., Any]) -> None:
    """An axis from 0 to 1, marked in fifths."""
    set_limits(0, 1)
    set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", ".2", ".4", ".6", ".8", "1"])


def map_limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis for values of mAP: whole tenths, at least two of them, around the values;
    those that lie far below the best are left out, which would press the others together."""
    best = max(values, default=1.0)
    lowest = max(min(values, default=0.0), best - _MAP_IN_SIGHT)
    low, high = math.floor(10 * lowest + 1e-9) / 10, math.ceil(10 * best - 1e-9) / 10
    if high - low < 0.15:
        return (high - 0.2, high) if high > 0.15 else (0.0, 0.2)
    return low, high


def show_map_range(axes: Axes, values: Sequence[float]) -> None:
    """Makes the y axis that of these values of mAP."""
    axes.set_ylim(map_limits(values))
    axes.yaxis.set_major_locator(MaxNLocator(_MAX_TICKS, steps=STEPS))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("validation mAP")


def map_scale(values: Sequence[float]) -> Scale:
    """The same as a scale; values that are left out lie at its end."""
    low, high = map_limits(values)
    ticks = np.linspace(low, high, round(10 * (high - low)) + 1).tolist()
    return Scale(
        tuple(max(0.0, (value - low) / (high - low)) for value in values),
        tuple((tick - low) / (high - low) for tick in ticks),
        tuple(f"{tick:.1f}" for tick in ticks),
    )


def name_lines(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes each line's name right of its end, pushed apart where they would overlap.

    `ends`: (last value, name, colour) of each.
    """
    low, high = axes.get_ylim()
    gap = 0.085 * (high - low)
    at = -np.inf
    for value, name, colour in sorted(ends):
        at = max(value, at + gap)
        axes.annotate(
            name,
            xy=(1, at),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def plain_text(text: str) -> str:
    """So that matplotlib, which reads $…$ as a formula, shows the text as it is."""
    return text.replace("$", r"\$")


def _round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers; with 2 and 5 times them where they are few."""
    for multiples in ([1], [1, 3], [1, 2, 5]):
        steps = np.outer(10.0 ** np.arange(-12, 13), multiples).ravel()
        ticks = [float(step) for step in steps if low <= step <= high]
        if len(ticks) >= 2:
            break
    return ticks[:: -(-len(ticks) // (_MAX_TICKS + 1))] if ticks else ticks


def _power_labels(ticks: Sequence[float]) -> list[str]:
    """0.1, 1, 10; if any is below 0.01 or above 1000, all as powers, 10⁻⁵, in plain text."""
    if all(0.0099 < tick < 1001 for tick in ticks):
        return [f"{tick:g}" for tick in ticks]
    return [_power(tick) for tick in ticks]


def _power(tick: float) -> str:
    mantissa, exponent = f"{tick:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}·{power}"
