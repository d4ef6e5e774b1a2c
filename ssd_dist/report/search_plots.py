"""Plots of how a search went, drawn for a panel of about 320 CSS pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from ssd_dist.experiment import TrialRecord
from ssd_dist.report.axes import STEPS, scale_of, show_map_range, show_scale
from ssd_dist.report.svg import MUTED, SERIES, STYLE, panel, to_svg
from ssd_dist.report.trial_marks import in_sight, show_trials, with_map


def history(trials: Sequence[TrialRecord]) -> Markup:
    """Best validation mAP of each trial in their order, and the best so far as a line."""
    shown = sorted(with_map(trials), key=lambda trial: trial.number)
    numbers = [trial.number for trial in shown]
    values = [trial.map_11pt or 0.0 for trial in shown]
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210)
        if shown:
            best_so_far = np.maximum.accumulate(values)
            last = max(trial.number for trial in trials)
            axes.step(
                [*numbers, last],
                [*best_so_far, best_so_far[-1]],
                where="post",
                color=SERIES[1],
                linewidth=1.6,
            )
        show_map_range(axes, values)
        show_trials(axes, shown, numbers, *in_sight(values))
        axes.margins(x=0.05)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
        axes.set_xlabel("trial")
        axes.grid(visible=False, axis="x")
        return to_svg(figure, "history")


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
            axes.plot(epochs, trial.curve, **look)
            axes.plot(epochs[-1:], trial.curve[-1:], "o", markersize=3.5, **look)
        show_map_range(axes, [value for trial in trials for value in trial.curve])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
        axes.set_xlabel("epoch")
        axes.grid(visible=False, axis="x")
        return to_svg(figure, "trial-curves")


def map_against(path: str, trials: Sequence[TrialRecord]) -> Markup:
    """Best validation mAP of the trials against one hyperparameter."""
    shown = [trial for trial in with_map(trials) if path in trial.parameters]
    values = [trial.map_11pt or 0.0 for trial in shown]
    scale = scale_of([trial.parameters[path] for trial in shown])
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210)
        show_scale(axes, "x", scale)
        show_map_range(axes, values)
        show_trials(axes, shown, scale.positions, *in_sight(values))
        axes.grid(visible=False, axis="x")
        return to_svg(figure, f"map-against-{path}")


def pareto_front(trials: Sequence[TrialRecord]) -> Markup | None:
    """Validation mAP against the time of a picture, the front of both as a line; None where no
    trial was timed."""
    shown = [trial for trial in with_map(trials) if trial.ms_per_image is not None]
    if not shown:
        return None
    times = [trial.ms_per_image or 0.0 for trial in shown]
    values = [trial.map_11pt or 0.0 for trial in shown]
    front = sorted((t.ms_per_image or 0.0, t.map_11pt or 0.0) for t in shown if t.pareto)
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 210)
        axes.step(*zip(*front, strict=True) if front else ([], []), where="post", color=SERIES[1])
        show_map_range(axes, values)
        show_trials(axes, shown, times, *in_sight(values))
        axes.set_xlim(0, 1.1 * max(times))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.set_xlabel("ms a picture")
        return to_svg(figure, "pareto-front")
