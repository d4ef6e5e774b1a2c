"""Plots of a data set's objects: how many there are of each size and aspect, and how many of them
the priors can reach."""

from __future__ import annotations

import matplotlib
import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from ssd_dist.report.svg import SERIES, STYLE, panel, to_svg

_REACHED, _LOST = SERIES[0], SERIES[1]
_BINS = 32


def size_plot(input_sides: ArrayLike, reached: ArrayLike) -> Markup:
    """Histogram of the side of a square of each object's area, in pixels of the network's input.

    Args:
        input_sides: (N,).
        reached: (N,) bool, whether a prior is positive for the object by its IoU.
    """
    ticks = [2.0**i for i in range(1, 12)]
    labels = [f"{tick:g}" for tick in ticks]
    return _histogram(input_sides, reached, ticks, labels, "side at the input, px", "data-size")


def aspect_plot(aspects: ArrayLike, reached: ArrayLike) -> Markup:
    """Histogram of width by height, as the network sees it; see `size_plot`."""
    ticks = [1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0]
    labels = ["1:8", "1:4", "1:2", "1", "2:1", "4:1", "8:1"]
    return _histogram(aspects, reached, ticks, labels, "width : height", "data-aspect")


def _histogram(
    values: ArrayLike,
    reached: ArrayLike,
    ticks: list[float],
    labels: list[str],
    axis_label: str,
    name: str,
) -> Markup:
    """On a logarithmic axis, those that are not reached standing on those that are."""
    logs = np.log2(np.asarray(values, dtype=np.float64))
    is_reached = np.asarray(reached, dtype=bool)
    low, high = (float(logs.min()), float(logs.max())) if len(logs) else (-1.0, 1.0)
    low, high = low - 0.25, high + 0.25
    edges = np.linspace(low, high, _BINS + 1)
    found = np.histogram(logs[is_reached], edges)[0]
    lost = np.histogram(logs[~is_reached], edges)[0]
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(420, 230)
        width = 0.9 * (high - low) / _BINS
        middles = (edges[:-1] + edges[1:]) / 2
        axes.bar(middles, found, width, color=_REACHED)
        axes.bar(middles, lost, width, bottom=found, color=_LOST)
        at = np.log2(ticks)
        seen = [i for i, tick in enumerate(at) if low <= tick <= high]
        axes.set_xlim(low, high)
        axes.set_xticks([at[i] for i in seen], [labels[i] for i in seen])
        axes.grid(visible=False, axis="x")
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.set_xlabel(axis_label)
        axes.set_ylabel("objects")
        return to_svg(figure, name)
