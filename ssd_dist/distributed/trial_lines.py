"""What the terminal shows while a search runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from ssd_dist.distributed.buckets import shown_location
from ssd_dist.distributed.searcher import StudySearcher, last_failure
from ssd_dist.experiment import EVENT_FILES, TrialRecord
from ssd_dist.terminal import Terminal, format_value, shown

_LOST = ("The actor died", "is unavailable: ", "The node has died", "worker died unexpectedly")
"""How Ray says that a trial's process has gone without a word of its own."""


class TrialLines(Callback):
    """A line for each trial that ends, and the bar."""

    def __init__(
        self,
        searcher: StudySearcher,
        terminal: Terminal,
        earlier: list[TrialRecord],
        num_trials: int,
        name: str = "search",
        line: Callable[[TrialRecord, float], str] | None = None,
    ) -> None:
        """`name` stands at the bar; `line` writes a trial that ended, given the best mAP so far."""
        self._name, self._line = name, line or trial_line
        self._searcher, self._terminal, self._num_trials = searcher, terminal, num_trials
        self._best = max((trial.map_11pt or 0.0 for trial in earlier), default=0.0)
        self._num_ended = sum(trial.state != "running" for trial in earlier)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch of a trial: the bar tells the best so far."""
        self._best = max(self._best, result.get("map_11pt", 0.0))
        self._advance()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended: complete, pruned or diverged."""
        self._end(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed, and will be started again."""
        record = self._searcher.record(trial.trial_id)
        if record is not None:
            again = "goes on from its last checkpoint" if record.epochs else "begins again"
            failure = _failure(last_failure(trial))
            self._terminal.line(f"note: trial {record.number} {failure}, and {again}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._end(trial)

    def _end(self, trial: Any) -> None:
        record = self._searcher.record(trial.trial_id)
        if record is None:  # the study's storage is lost, and the search about to stop
            return
        self._num_ended += 1
        place = f"{self._num_ended:>3}/{self._num_trials}"
        self._terminal.line(f"{place}  {self._line(record, self._best)}")
        if record.error is not None and record.state in ("failed", "diverged"):
            self._terminal.line(f"note: trial {record.number} {record.state}: {record.error}")
        self._advance()

    def _advance(self) -> None:
        self._terminal.advance(
            self._num_ended, self._num_trials, f"{self._name} (best mAP {self._best:.4f})"
        )


def trial_line(trial: TrialRecord, best: float) -> str:
    """A trial in one line."""
    values = "  ".join(f"{name} {format_value(v)}" for name, v in trial.parameters.items())
    accuracy = "-" if trial.map_11pt is None else f"{trial.map_11pt:.4f}"
    speed = "" if trial.ms_per_image is None else f"  {trial.ms_per_image:.1f} ms/image"
    return (
        f"trial {trial.number:<3} mAP {accuracy} (best {best:.4f}){speed}"
        f"  {trial.state:<8} after {trial.epochs} epochs  {values}"
    )


def _failure(trace: str) -> str:
    """What befell a trial, of which Ray Tune wrote `trace`."""
    if any(words in trace for words in _LOST):
        return "lost its process or its machine"
    lines = trace.splitlines()
    return f"failed ({lines[-1] if lines else 'no message'})"


def announce(folder: Path, bucket: str | None, terminal: Terminal) -> None:
    """Tells how a search is watched, beside Ray's own dashboard; `bucket` as in `run_search`."""
    experiment = shown(folder) if bucket is None else shown_location(bucket)
    events = shown(folder / EVENT_FILES)
    terminal.line(f"its trials: python jobs/dashboard.py --experiment {shlex.quote(experiment)}")
    terminal.line(f"its curves: tensorboard --logdir {shlex.quote(events)}")
