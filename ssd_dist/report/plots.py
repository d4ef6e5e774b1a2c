"""The report's plots, each drawn for a panel of about 320 CSS pixels.

Titles and captions are the page's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from ssd_dist.evaluation.voc_ap import Curve, Rank
from ssd_dist.experiment import TrialRecord
from ssd_dist.report.svg import MUTED, NUM_SERIES, PAPER, SERIES, STYLE, panel, to_svg

_STEPS = [1, 2, 5, 10]
_MAX_CURVE_POINTS = 400
_MAX_SERIES_POINTS = 500


def precision_recall(curve: Curve, ranks: Sequence[Rank], series: int) -> Markup:
    """The curve of one class and the eleven points whose mean height is its AP.

    A level that is never reached is a hollow dot at precision 0.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 230)
        colour = SERIES[series % NUM_SERIES]
        recall, precision = _thin(curve)
        axes.plot(recall, precision, color=colour, linewidth=1.6, alpha=0.75)
        reached = [rank for rank in ranks if rank.confidence is not None]
        missed = [rank for rank in ranks if rank.confidence is None]
        dots: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 6.5,
            "clip_on": False,
        }
        axes.plot(
            [rank.recall for rank in reached],
            [rank.precision for rank in reached],
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=1.2,
            zorder=4,
            **dots,
        )
        axes.plot(
            [rank.recall for rank in missed],
            [0.0] * len(missed),
            color=PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            zorder=4,
            **dots,
        )
        _unit_range(axes.set_xlim, axes.set_xticks)
        _unit_range(axes.set_ylim, axes.set_yticks)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        return to_svg(figure, f"precision-recall-{series}")


def map_against(path: str, trials: Sequence[TrialRecord]) -> Markup:
    """Best validation mAP of the trials against one hyperparameter.

    Filled: trained to the end; hollow: stopped early; a cross: broke off, or is not at its end; a
    ring around the best. The axis is
    logarithmic where the values are positive and span more than a factor of 5; values that are not
    numbers stand side by side.
    """
    shown = [t for t in trials if t.map_11pt is not None and path in t.parameters]
    values = [trial.parameters[path] for trial in shown]
    y = [trial.map_11pt or 0.0 for trial in shown]
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210)
        x = _hyperparameter_axis(axes, values)
        marks = {"complete": ("o", SERIES[0]), "pruned": ("o", PAPER), "other": ("X", PAPER)}
        states = [trial.state if trial.state in marks else "other" for trial in shown]
        for state, (marker, face) in marks.items():
            here = [i for i, of_trial in enumerate(states) if of_trial == state]
            axes.plot(
                [x[i] for i in here],
                [y[i] for i in here],
                linestyle="none",
                marker=marker,
                markersize=7,
                color=face,
                markeredgecolor=SERIES[0],
                markeredgewidth=1.4,
                clip_on=False,
                zorder=3,
            )
        if shown:
            best = int(np.argmax(y))
            axes.plot(
                x[best],
                y[best],
                marker="o",
                markersize=14,
                color="none",
                markeredgecolor=SERIES[1],
                markeredgewidth=1.8,
                clip_on=False,
                zorder=2,
            )
        _unit_range(axes.set_ylim, axes.set_yticks)
        axes.set_ylabel("validation mAP")
        axes.grid(visible=False, axis="x")
        return to_svg(figure, f"map-against-{path}")


def trial_curves(trials: Sequence[TrialRecord]) -> Markup | None:
    """Validation mAP of every trial against the epoch, the first of `trials` brought out.

    None if no trial ran two epochs.
    """
    if not any(len(trial.curve) > 1 for trial in trials):
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210)
        for position, trial in reversed(list(enumerate(trials))):
            epochs = range(1, len(trial.curve) + 1)
            look: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "alpha": 0.6}
            if position == 0:
                look = {"color": SERIES[1], "linewidth": 2.0}
            axes.plot(epochs, trial.curve, clip_on=False, **look)
            axes.plot(epochs[-1:], trial.curve[-1:], "o", markersize=3.5, clip_on=False, **look)
        _unit_range(axes.set_ylim, axes.set_yticks)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_STEPS))
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation mAP")
        axes.grid(visible=False, axis="x")
        return to_svg(figure, "trial-curves")


def over_epochs(
    epochs: Sequence[Mapping[str, Any]], lines: Mapping[str, str], *, unit_range: bool = False
) -> Markup | None:
    """Quantities of a training against the epoch, each line named at its end.

    `lines`: key in `epochs` → the name to show. `unit_range`: the axis runs from 0 to 1. None if
    no epoch has any of the quantities.
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
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_STEPS))
        if unit_range:
            _unit_range(axes.set_ylim, axes.set_yticks)
        else:
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch")
        axes.grid(visible=False, axis="x")
        if len(lines) > 1:
            _name_lines(axes, ends)
        return to_svg(figure, f"epochs-{list(lines)}")


def _unit_range(set_limits: Callable[..., Any], set_ticks: Callable[..., Any]) -> None:
    """An axis from 0 to 1, marked in fifths."""
    set_limits(0, 1)
    set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", ".2", ".4", ".6", ".8", "1"])


def _name_lines(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes each line's name right of its end, pushed apart where they would overlap."""
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


def _hyperparameter_axis(axes: Axes, values: Sequence[Any]) -> list[float]:
    """Sets up the x axis for these values and says where each lies on it."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), [_without_math(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        return [float(names.index(str(value))) for value in values]
    numbers = [float(value) for value in values]
    if numbers and min(numbers) > 0 and max(numbers) > 5 * min(numbers):
        low, high = min(numbers) / 1.4, max(numbers) * 1.4
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        decades = [t for t in axes.get_xticks() if low <= t <= high]
        if len(decades) < 2:  # less than two powers of ten in sight: name 1, 2, 5 as well
            steps = np.outer(10.0 ** np.arange(-12, 12), [1, 2, 5]).ravel()
            decades = [step for step in steps if low <= step <= high]
        axes.xaxis.set_major_locator(FixedLocator(decades))
        axes.set_xticklabels(_decade_labels(decades))
    else:
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    return numbers


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _decade_labels(ticks: Sequence[float]) -> list[str]:
    """0.1, 1, 10; if any is below 0.01 or above 1000, all as powers, 10⁻⁵, in plain text."""
    if all(0.0099 < tick < 1001 for tick in ticks):
        return [f"{tick:g}" for tick in ticks]
    return [_power(tick) for tick in ticks]


def _power(tick: float) -> str:
    mantissa, exponent = f"{tick:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _without_math(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib reads $…$ as a formula


def _thin(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """At most about 2 · `_MAX_CURVE_POINTS` points of the curve: the highest and the lowest
    precision of each run of equal length, in their order, so that the teeth survive."""
    recall, precision, _ = curve
    if len(recall) <= 2 * _MAX_CURVE_POINTS:
        return recall, precision
    runs = np.array_split(np.arange(len(recall)), _MAX_CURVE_POINTS)
    keep = {int(run[pick(precision[run])]) for run in runs for pick in (np.argmin, np.argmax)}
    kept = np.array(sorted(keep | {0, len(recall) - 1}))
    return recall[kept], precision[kept]
