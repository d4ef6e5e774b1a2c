"""Plots of a search space: where in it the good trials lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.tri import Triangulation

from ssd_dist.experiment import TrialRecord
from ssd_dist.report.axes import map_scale, plain_text, scale_of, show_scale
from ssd_dist.report.svg import INK, MUTED, SERIES, STYLE, panel, to_svg
from ssd_dist.report.trial_marks import show_trials, with_map

_NUM_SHADES = 6
SHADE_OPACITY = 0.17
"""Of one layer; the page's legend lays as many over each other."""
_BEST_SHARE = 0.25
"""The part of the trials that the parallel coordinates bring out."""


def parallel_coordinates(
    paths: Sequence[str], names: Sequence[str], trials: Sequence[TrialRecord]
) -> Markup | None:
    """A line a trial through its hyperparameters to its validation mAP: the winner's brought out
    most, then the best quarter's.

    Args:
        paths: the hyperparameters, in their order from left to right.
        names: of the axes.
        trials: best first.

    None if fewer than two trials have all of them.
    """
    shown = [trial for trial in with_map(trials) if set(paths) <= set(trial.parameters)]
    if len(shown) < 2:
        return None
    scales = [scale_of([trial.parameters[path] for trial in shown]) for path in paths]
    scales.append(map_scale([trial.map_11pt or 0.0 for trial in shown]))
    num_best = max(1, round(_BEST_SHARE * len(shown)))
    with matplotlib.rc_context({**STYLE, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = panel(660, 270, right=56)
        for position in reversed(range(len(shown))):
            look: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "alpha": 0.45}
            if position == 0:
                look = {"color": SERIES[1], "linewidth": 2.4}
            elif position < num_best:
                look = {"color": SERIES[0], "linewidth": 1.6, "alpha": 0.9}
            heights = [scale.positions[position] for scale in scales]
            axes.plot(range(len(scales)), heights, "-o", markersize=3.5, clip_on=False, **look)
        for at, scale in enumerate(scales):
            axes.axvline(at, color=MUTED, linewidth=1.0, zorder=1)
            for tick, label in zip(scale.ticks, scale.labels, strict=True):
                axes.plot([at - 0.012, at], [tick, tick], color=MUTED, linewidth=1.0, zorder=1)
                axes.annotate(
                    label,
                    xy=(at, tick),
                    xytext=(-7, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=9.5,
                    color=MUTED,
                )
        axes.set_xlim(0, len(scales) - 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(range(len(scales)), [plain_text(n) for n in (*names, "validation mAP")])
        axes.tick_params(axis="x", labelcolor=INK, pad=8)
        axes.set_yticks([])
        axes.grid(visible=False)
        return to_svg(figure, "parallel-coordinates")


def shades(trials: Sequence[TrialRecord]) -> list[float]:
    """Validation mAP from which on each of the contours' shades begins, lowest first: each shade
    has about as many trials as the others."""
    values = [trial.map_11pt or 0.0 for trial in with_map(trials)]
    if not values:
        return []
    return np.unique(np.quantile(values, np.arange(_NUM_SHADES) / _NUM_SHADES)).tolist()


def contour(
    first: str, second: str, names: tuple[str, str], trials: Sequence[TrialRecord]
) -> Markup:
    """Validation mAP over two hyperparameters, interpolated linearly between the trials, which are
    shown; without shades where the trials span no area."""
    shown = [t for t in with_map(trials) if first in t.parameters and second in t.parameters]
    values = np.array([trial.map_11pt or 0.0 for trial in shown])
    x, y = (scale_of([trial.parameters[path] for trial in shown]) for path in (first, second))
    with matplotlib.rc_context(STYLE):
        figure, axes = panel(320, 270)
        show_scale(axes, "x", x)
        show_scale(axes, "y", y)
        mesh = _mesh(x.positions, y.positions, values)
        if mesh is not None:
            triangles, heights = mesh
            for level in shades(trials):
                axes.tricontourf(
                    triangles,
                    heights,
                    levels=[level, 2.0],
                    colors=[SERIES[0]],
                    alpha=SHADE_OPACITY,
                    zorder=1,
                )
        show_trials(axes, shown, x.positions, y.positions)
        axes.grid(visible=False)
        axes.set_xlabel(plain_text(names[0]))
        axes.set_ylabel(plain_text(names[1]))
        return to_svg(figure, f"contour-{first}-{second}")


def _mesh(
    x: Sequence[float], y: Sequence[float], values: np.ndarray
) -> tuple[Triangulation, np.ndarray] | None:
    """Triangles between the trials, and the value at each of their corners; of trials in the same
    place the best. None where they lie on one line."""
    best: dict[tuple[float, float], float] = {}
    for a, b, value in zip(x, y, values.tolist(), strict=True):
        key = round(a, 6), round(b, 6)
        best[key] = max(value, best.get(key, value))
    corners = np.array(list(best))
    if len(corners) < 3 or np.linalg.matrix_rank(corners[1:] - corners[0], tol=1e-3) < 2:
        return None
    return Triangulation(corners[:, 0], corners[:, 1]), np.array(list(best.values()))
