"""The plot of what was trained again: a dot a seed, a bar at the mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from ssd_dist.repeated import Repeated
from ssd_dist.report.axes import STEPS, plain_text
from ssd_dist.report.svg import INK, PAPER, SERIES, STYLE, panel, to_svg

_ROW = 46
"""Height of a configuration, in CSS pixels."""
_LOOKS = ((0.16, SERIES[0], SERIES[0]), (-0.14, PAPER, SERIES[1]))
"""Height in the row, face and edge of the dots: of validation, and of the report's split."""


def seed_values(repeats: Sequence[Repeated]) -> Markup:
    """The mAP of every seed of every configuration, best mean on top: filled on validation, and
    hollow, below, on the split of the report where that was evaluated."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 56 + _ROW * len(repeats))
        for row, one in enumerate(reversed(repeats)):
            for (offset, face, edge), values in zip(
                _LOOKS, (one.values, one.split_values or ()), strict=True
            ):
                if not values:
                    continue
                height = row + offset - 0.1
                axes.plot(
                    values,
                    [height] * len(values),
                    linestyle="none",
                    marker="o",
                    markersize=6.5,
                    color=face,
                    markeredgecolor=edge,
                    markeredgewidth=1.4,
                    clip_on=False,
                    zorder=3,
                )
                mean = fmean(values)
                axes.plot([mean, mean], [height - 0.13, height + 0.13], color=INK, zorder=4)
            axes.annotate(
                plain_text(one.name),
                xy=(0, row + 0.32),
                xycoords=("axes fraction", "data"),
                va="center",
            )
        axes.set_ylim(-0.5, len(repeats) - 0.5)
        axes.set_yticks([])
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("mAP")
        axes.spines["left"].set_visible(False)
        return to_svg(figure, "repeats")
