"""Plots of a detector's accuracy, drawn for a panel of about 320 CSS pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup

from ssd_dist.evaluation.voc_ap import Curve, Rank
from ssd_dist.report.axes import unit_range
from ssd_dist.report.svg import NUM_SERIES, PAPER, SERIES, STYLE, panel, to_svg

_MAX_CURVE_POINTS = 400


def precision_recall(curve: Curve, ranks: Sequence[Rank], series: int) -> Markup:
    """The curve of one class and the eleven points whose mean height is its AP.

    A level that is never reached is a hollow dot at precision 0.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 230)
        colour = SERIES[series % NUM_SERIES]
        recall, precision = thinned(curve)
        axes.plot(recall, precision, color=colour, linewidth=1.6, alpha=0.75)
        reached = [rank for rank in ranks if rank.confidence is not None]
        missed = [rank for rank in ranks if rank.confidence is None]
        dots: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 6.5,
            "clip_on": False,
            "zorder": 4,
        }
        axes.plot(
            [rank.recall for rank in reached],
            [rank.precision for rank in reached],
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=1.2,
            **dots,
        )
        axes.plot(
            [rank.recall for rank in missed],
            [0.0] * len(missed),
            color=PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            **dots,
        )
        unit_range(axes.set_xlim, axes.set_xticks)
        unit_range(axes.set_ylim, axes.set_yticks)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        return to_svg(figure, f"precision-recall-{series}")


def thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """At most about 2 · `_MAX_CURVE_POINTS` points of the curve: the highest and the lowest
    precision of each run of equal length, in their order, so that the teeth survive."""
    recall, precision, _ = curve
    if len(recall) <= 2 * _MAX_CURVE_POINTS:
        return recall, precision
    runs = np.array_split(np.arange(len(recall)), _MAX_CURVE_POINTS)
    keep = {int(run[pick(precision[run])]) for run in runs for pick in (np.argmin, np.argmax)}
    kept = np.array(sorted(keep | {0, len(recall) - 1}))
    return recall[kept], precision[kept]
