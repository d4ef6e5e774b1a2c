"""What was searched, how it went, and what it says about the hyperparameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ssd_dist.analysis.importance import Learned
from ssd_dist.experiment import TrialRecord
from ssd_dist.report import search_plots, space_plots
from ssd_dist.report.content import ReportContent
from ssd_dist.report.sections.answer import SYMBOLS, searched
from ssd_dist.report.trial_marks import in_sight, with_map

_MOST_PAIRED = 4
"""Hyperparameters of whose pairs a contour is drawn: the most important ones that are numbers."""
_MOST_IN_PARALLEL = 7
_MOST_INTERACTIONS = 5
_STATES = {"pruned": "stopped early", "running": "unfinished"}


def search(content: ReportContent) -> dict[str, Any] | None:
    """What the section shows; None where there was no search."""
    if content.leaderboard is None:
        return None
    trials = content.trials_by_map()
    names = searched(trials)
    symbols = {name: SYMBOLS.get(name, name) for name in names}
    weightiest = _by_importance(names, content.learned)
    numeric = [name for name in weightiest if _is_numeric(name, trials)]
    far_below = any(in_sight([trial.map_11pt or 0.0 for trial in with_map(trials)])[1])
    return {
        "trials": trials,
        "states": _STATES,
        "seconds": sum(trial.seconds for trial in trials),
        "marks": _marks(trials, far_below=far_below),
        "far_below": far_below,
        "timed": any(trial.ms_per_image is not None for trial in trials),
        "parameters": [
            {
                "name": name,
                "symbol": symbols[name],
                "plot": search_plots.map_against(name, trials),
            }
            for name in names
        ],
        "history": search_plots.history(trials),
        "curves": search_plots.trial_curves(trials),
        "pareto_front": search_plots.pareto_front(trials),
        "parallel": space_plots.parallel_coordinates(
            weightiest[:_MOST_IN_PARALLEL],
            [symbols[name] for name in weightiest[:_MOST_IN_PARALLEL]],
            trials,
        ),
        "contours": [
            {
                "names": (symbols[first], symbols[second]),
                "plot": space_plots.contour(
                    first, second, (symbols[first], symbols[second]), trials
                ),
            }
            for first, second in itertools.combinations(numeric[:_MOST_PAIRED], 2)
        ],
        "not_paired": len(numeric) > _MOST_PAIRED,
        "shades": space_plots.shades(trials),
        "shade_opacity": space_plots.SHADE_OPACITY,
        "learned": _learned(content.learned, symbols),
    }


def _marks(trials: Sequence[TrialRecord], *, far_below: bool) -> list[str]:
    """What the marks mean that occur, beside the filled dot."""
    states = {trial.state for trial in with_map(trials)}
    meanings = {
        "hollow ones were stopped early, as others were ahead of them": "pruned" in states,
        "crosses broke off or are not at their end": bool(states - {"complete", "pruned"}),
        "triangles lie below the plot": far_below,
    }
    return [meaning for meaning, occurs in meanings.items() if occurs]


def _is_numeric(name: str, trials: Sequence[TrialRecord]) -> bool:
    values = [trial.parameters.get(name) for trial in trials]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _by_importance(names: Sequence[str], learned: Learned | None) -> list[str]:
    importance = {} if learned is None else learned.importance
    return sorted(names, key=lambda name: -importance.get(name, 0.0))


def _learned(learned: Learned | None, symbols: dict[str, str]) -> dict[str, Any] | None:
    if learned is None:
        return None
    alone = [(symbols.get(name, name), share, False) for name, share in learned.importance.items()]
    together = [
        (f"{symbols.get(first, first)} with {symbols.get(second, second)}", share, True)
        for first, second, share in learned.interactions[:_MOST_INTERACTIONS]
    ]
    return {
        "sentences": learned.sentences,
        "shares": [*alone, *together],
        "num_trials": learned.num_trials,
        "r2_unseen": learned.r2_unseen,
    }
