"""The first page: which model, how good, how fast, how large, from which hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_dist.analysis.importance import NAMES, listed
from ssd_dist.experiment import TrialRecord
from ssd_dist.report import formats
from ssd_dist.report.content import ReportContent
from ssd_dist.report.sections.accuracy import ClassRow

SYMBOLS = {"alpha": "α", "l2_lambda": "λ", "lr": "learning rate"}
_TITLES = {**SYMBOLS, "lr": "Learning rate"}
_MEANINGS = {
    "alpha": "weight of the box loss",
    "l2_lambda": "strength of the L2 term",
    "lr": "at its peak",
}
_CLASSES_SHOWN = 12
_BYTES_OF_A_PARAMETER = 4


def answer(content: ReportContent, classes: Sequence[ClassRow]) -> dict[str, Any]:
    """What the first page shows."""
    num_parameters = content.complexity["total_params"]
    return {
        "interval": content.summary.map_11pt_interval,
        "classes": _highest_and_lowest(classes),
        "num_classes": sum(row["ap"] is not None for row in classes),
        "parameters": formats.magnitude(num_parameters),
        "size": formats.num_bytes(_BYTES_OF_A_PARAMETER * num_parameters),
        "ms": content.timing["inference_ms_per_image"],
        "device": device(content),
        "hyperparameters": [
            {"title": _TITLES.get(name, name), "value": value, "meaning": _MEANINGS.get(name, "")}
            for name, value in content.hyperparameters.items()
        ],
        "num_trials": None if content.leaderboard is None else len(content.leaderboard),
        "searched": _searched(content),
        "repeats": _repeats(content),
        "num_seen": content.num_seen,
    }


def searched(trials: Sequence[TrialRecord]) -> list[str]:
    """The searched hyperparameters, the three named ones first."""
    found = {name for trial in trials for name in trial.parameters}
    return [name for name in SYMBOLS if name in found] + sorted(found - set(SYMBOLS))


def device(content: ReportContent) -> str:
    """`CPU, 2 threads`, or the GPU's name."""
    name, threads = content.timing["device"], content.timing["num_threads"]
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if name == "cpu" else name


def _searched(content: ReportContent) -> str | None:
    names = [NAMES.get(name, name) for name in searched(content.leaderboard or ())]
    return listed(names) if names else None


def _repeats(content: ReportContent) -> dict[str, Any] | None:
    if content.repeats is None or content.judgement is None:
        return None
    winner = content.repeats[0]
    return {
        "sentence": content.judgement.sentence,
        "paper_won": winner.is_paper,
        "num_seeds": len(winner.measured),
    }


def _highest_and_lowest(classes: Sequence[ClassRow]) -> list[ClassRow | None]:
    """The classes that the first page shows: all if they are few, else both ends by AP, with None
    for those between."""
    if len(classes) <= _CLASSES_SHOWN:
        return list(classes)
    ordered = sorted((row for row in classes if row["ap"] is not None), key=lambda r: -r["ap"])
    half = _CLASSES_SHOWN // 2
    if len(ordered) <= 2 * half:
        return [*ordered, None]
    return [*ordered[:half], None, *ordered[-half:]]
