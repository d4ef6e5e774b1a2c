"""How a trial of a search is drawn, in all plots alike.

A trial that was trained to its end is a filled dot, one that was stopped early a hollow one, and
one that broke off, or is not at its end, a cross; the winner has a ring. Trials far below the
others are triangles at the lower edge.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from ssd_dist.experiment import TrialRecord
from ssd_dist.report.axes import map_limits
from ssd_dist.report.svg import PAPER, SERIES

_MARKS = {
    "complete": ("o", SERIES[0]),
    "pruned": ("o", PAPER),
    "other": ("X", PAPER),
    "below": ("v", PAPER),
}


def with_map(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that finished an epoch."""
    return [trial for trial in trials if trial.map_11pt is not None]


def in_sight(values: Sequence[float]) -> tuple[list[float], list[bool]]:
    """The heights at which values of mAP are drawn, and which of them lie below the axis."""
    low, _ = map_limits(values)
    return [max(low, value) for value in values], [value < low for value in values]


def show_trials(
    axes: Axes,
    trials: Sequence[TrialRecord],
    x: Sequence[float],
    y: Sequence[float],
    below: Sequence[bool] | None = None,
) -> None:
    """A mark for each trial as its state says, one pointing down for those `below` the axis, and a
    ring around the best."""
    looks = [trial.state if trial.state in _MARKS else "other" for trial in trials]
    if below is not None:
        looks = ["below" if is_below else look for look, is_below in zip(looks, below, strict=True)]
    for look, (marker, face) in _MARKS.items():
        here = [i for i, of_trial in enumerate(looks) if of_trial == look]
        axes.plot(
            [x[i] for i in here],
            [y[i] for i in here],
            linestyle="none",
            marker=marker,
            markersize=6.5,
            color=face,
            markeredgecolor=SERIES[0],
            markeredgewidth=1.4,
            clip_on=False,
            zorder=3,
        )
    if trials:
        best = max(range(len(trials)), key=lambda i: trials[i].map_11pt or 0.0)
        axes.plot(
            x[best],
            y[best],
            marker="o",
            markersize=13,
            color="none",
            markeredgecolor=SERIES[1],
            markeredgewidth=1.8,
            clip_on=False,
            zorder=4,
        )
