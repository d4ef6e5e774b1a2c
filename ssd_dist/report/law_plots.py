"""Plots of the law: time against each predictor, and data-parallel scaling.

They are drawn from report.json's `law` and `law_details`; :class:`ssd_dist.analysis.law.Law` says
what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ssd_dist.report.svg import INK, MUTED, NUM_SERIES, PAPER, SERIES, STYLE, panel, to_svg

_AXES = {
    "weights": ("weights, millions", 1e6),
    "macs": ("multiply-accumulates, billions", 1e9),
    "bytes": ("bytes moved, millions", 1e6),
}
_MARKS = {"width": "s", "depth": "^", "input size": "o", "batch": "D"}
"""A shape and a colour for what is varied: told apart without the colour."""
_DOTS: dict[str, Any] = {
    "linestyle": "none",
    "markersize": 6.5,
    "markeredgecolor": PAPER,
    "markeredgewidth": 1.0,
    "zorder": 3,
}
_MOST_TICKS = 6


def law_plots(report: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Caption and plot of each figure: time against weights, against multiply-accumulates and
    against bytes; the training step against the workers; and, where it could be measured, an
    all-reduce against its size.

    `report`: has report.json's keys `law` and `law_details`.
    """
    law, details = report["law"], report["law_details"]
    plots = [
        (_caption(key, law[key]), _time_against(key, law[key], details["points"])) for key in _AXES
    ]
    scaling = details["scaling"]
    measured = f"A training step of several workers ({scaling['point']} each)"
    if scaling["model"] is None:
        return [*plots, (measured, _steps(scaling["steps"]))]
    bandwidth = scaling["model"]["bandwidth_bytes_per_s"] / 1e9
    return [
        *plots,
        (
            f"{measured}; dashed: extrapolated, whiskers: with latency on every message",
            _steps(scaling["steps"]),
        ),
        (
            f"An all-reduce alone, and its model: {bandwidth:.2g} GB/s, "
            f"{scaling['model']['latency_ms']:.2g} ms",
            _all_reduces(scaling),
        ),
    ]


def _caption(key: str, fit: Mapping[str, Any]) -> str:
    low, high = fit["exponent_interval"]
    return (
        f"Training time against {_AXES[key][0].partition(',')[0]}: R² {fit['r2']:.2f}, "
        f"exponent {fit['exponent']:.2f} ({low:.2f} to {high:.2f})"
    )


def _time_against(key: str, fit: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Markup:
    """The points with the power law through them and the line, which on these axes is a curve;
    whiskers from the 10th to the 90th percentile; the point farthest from the power law named."""
    name, unit = _AXES[key]
    counts = [point if key == "weights" else point["training"] for point in points]
    x = np.array([count[key] for count in counts]) / unit
    y, p10, p90 = (
        np.array([point["training"]["ms"][of] for point in points])
        for of in ("median", "p10", "p90")
    )
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 280)
        _leave_room_for_legend(axes)
        low, high = _logarithmic(axes, "x", x)
        bottom, _ = _logarithmic(axes, "y", [*p10, *p90])
        along = np.geomspace(low, high, 80)
        law = fit["factor"] * (along * unit) ** fit["exponent"]
        line = fit["intercept"] + fit["slope"] * along * unit
        axes.plot(along, law, color=INK, linewidth=1.3, label="power law")
        # Where the line is below what the axis shows it may be below 0, too.
        shown = line > bottom
        axes.plot(
            along[shown], line[shown], color=MUTED, linewidth=1.3, dashes=(4, 3), label="line"
        )
        axes.vlines(x, p10, p90, color=MUTED, linewidth=1.0)
        for series, (varied, marker) in enumerate(_MARKS.items()):
            here = [i for i, point in enumerate(points) if point["varied"] == varied]
            axes.plot(x[here], y[here], marker, color=SERIES[series], label=varied, **_DOTS)
        _name_farthest(axes, x, y, points, key)
        _legend(axes, num_columns=3)
        axes.set_xlabel(name)
        axes.set_ylabel("ms a picture")
        return to_svg(figure, f"law-{key}")


def _name_farthest(
    axes: Axes, x: np.ndarray, y: np.ndarray, points: Sequence[Mapping[str, Any]], key: str
) -> None:
    """Rings the point that the power law misses by most, and names it where fewest points lie."""
    ratios = [point["measured_by_predicted"][key] for point in points]
    farthest = int(np.argmax(np.abs(np.log(ratios))))
    name = f"{points[farthest]['name']}: {ratios[farthest]:.2g} ×".replace(", ", "\n", 1)
    axes.plot(x[farthest], y[farthest], "o", markersize=13, color="none", markeredgecolor=INK)

    at = axes.transData.transform(np.column_stack([x, y]))
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    width, height = 5.2 * max(map(len, name.split("\n"))), 26.0

    def crowding(side: tuple[int, int]) -> float:
        corner = at[farthest] + np.multiply(side, (10, 4))
        low = np.minimum(corner, corner + np.multiply(side, (width, height)))
        high = np.add(low, (width, height))
        outside = np.maximum(0, [left, bottom] - low).sum()
        outside += np.maximum(0, high - [right, top]).sum()
        return 10 * outside + np.sum(np.all((at > low - 5) & (at < high + 5), axis=1))

    across, up = min(((-1, 1), (1, 1), (-1, -1), (1, -1)), key=crowding)
    axes.annotate(
        name,
        xy=(x[farthest], y[farthest]),
        xytext=(10 * across, 4 * up),
        textcoords="offset points",
        ha="left" if across > 0 else "right",
        va="bottom" if up > 0 else "top",
        fontsize=9.5,
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> Markup:
    """Computing and communication stacked, a bar for each number of workers."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 260)
        _leave_room_for_legend(axes)
        parts = ("compute_ms", "computing"), ("communication_ms", "communication")
        for series, (part, name) in enumerate(parts):
            for place, step in enumerate(steps):
                hollow = step["extrapolated"]
                axes.bar(
                    place,
                    step[part],
                    bottom=step["compute_ms"] if series else 0,
                    width=0.62,
                    color=PAPER if hollow else SERIES[series],
                    edgecolor=SERIES[series],
                    linewidth=1.4,
                    linestyle=(0, (3, 2)) if hollow else "solid",
                    label=name if place == 0 else None,
                )
        for place, step in enumerate(steps):
            if step["extrapolated"]:
                highest = step["compute_ms"] + step["communication_per_hop_ms"]
                axes.plot([place] * 2, [step["step_ms"], highest], "_-", color=MUTED, linewidth=1.3)
        axes.set_xticks(range(len(steps)), [str(step["workers"]) for step in steps])
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_xlabel("workers")
        axes.set_ylabel("ms a step")
        axes.grid(visible=False, axis="x")
        _legend(axes, num_columns=2)
        return to_svg(figure, "law-scaling")


def _all_reduces(scaling: Mapping[str, Any]) -> Markup:
    """Time against the bytes that each worker sends, which one line explains for all k."""
    measured, model = scaling["all_reduces"], scaling["model"]
    workers = sorted({time["workers"] for time in measured})
    sent = np.array([2 * (t["workers"] - 1) / t["workers"] * t["bytes"] / 1e6 for t in measured])
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 260)
        _leave_room_for_legend(axes)
        low, high = _logarithmic(axes, "x", sent)
        along = np.geomspace(low, high, 80)
        law = model["latency_ms"] + 1e9 * along / model["bandwidth_bytes_per_s"]
        _logarithmic(axes, "y", [*law, *(time["ms"] for time in measured)])
        axes.plot(along, law, color=INK, linewidth=1.3, label="model")
        for series, k in enumerate(workers):
            here = [i for i, time in enumerate(measured) if time["workers"] == k]
            axes.plot(
                sent[here],
                [measured[i]["ms"] for i in here],
                "os^Dv"[series % 5],
                color=SERIES[series % NUM_SERIES],
                label=f"{k} workers",
                **_DOTS,
            )
        axes.set_xlabel("2(k − 1)/k · bytes, millions")
        axes.set_ylabel("ms")
        _legend(axes, num_columns=3)
        return to_svg(figure, "law-all-reduce")


def _logarithmic(
    axes: Axes, which: Literal["x", "y"], values: Sequence[float] | np.ndarray
) -> tuple[float, float]:
    """Makes the x or y axis logarithmic, with room around the values and a few plain numbers on
    it; returns its ends."""
    low, high = min(values) / 1.25, max(values) * 1.25
    for multiples in ([1, 2, 5], [1, 3], [1]):
        steps = np.outer(10.0 ** np.arange(-9, 13), multiples).ravel()
        ticks = [step for step in steps if low <= step <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda tick, _: f"{tick:g}")
    return low, high


def _leave_room_for_legend(axes: Axes) -> None:
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, box.height * 0.87))


def _legend(axes: Axes, *, num_columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.04, 1.0),
        ncols=num_columns,
        frameon=False,
        fontsize=9.5,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
