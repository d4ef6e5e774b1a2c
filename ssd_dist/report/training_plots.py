"""Plots of a training, drawn for a panel of about 320 CSS pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from ssd_dist.report.axes import STEPS, name_lines, unit_range
from ssd_dist.report.svg import SERIES, STYLE, panel, to_svg

_MAX_SERIES_POINTS = 500


def over_epochs(
    epochs: Sequence[Mapping[str, Any]], lines: Mapping[str, str], *, is_map: bool = False
) -> Markup | None:
    """Quantities of a training against the epoch, each line named at its end.

    `lines`: key in `epochs` → the name to show. `is_map`: the axis runs from 0 to 1. None if no
    epoch has any of the quantities.
    """
    known: dict[str, tuple[list[float], list[float]]] = {}
    for key in lines:
        rows = [(e["epoch"], e[key]) for e in epochs if e.get(key) is not None]
        rows = rows[:: max(1, len(rows) // _MAX_SERIES_POINTS)]
        if rows:
            known[key] = ([x for x, _ in rows], [y for _, y in rows])
    if not known:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210, right=74 if len(lines) > 1 else 14)
        ends = []
        for series, key in enumerate(known):
            x, y = known[key]
            axes.plot(x, y, color=SERIES[series], linewidth=1.8, clip_on=False)
            axes.plot(x[-1], y[-1], "o", color=SERIES[series], markersize=4.5, clip_on=False)
            ends.append((y[-1], lines[key], SERIES[series]))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
        if is_map:
            unit_range(axes.set_ylim, axes.set_yticks)
        else:
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch")
        axes.grid(visible=False, axis="x")
        if len(lines) > 1:
            name_lines(axes, ends)
        return to_svg(figure, f"epochs-{list(lines)}")
