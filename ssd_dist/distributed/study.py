"""The search's one truth: an Optuna study in a file, and how Ray Tune asks it.

Ray Tune runs trials; what to try (Optuna's sampler) and what to stop (Optuna's pruner, ASHA) is
decided by the study, which is on disk after every epoch. So a search whose driver was killed needs
no snapshot of Ray Tune's: the study knows what is finished, and which trials were under way.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ssd_dist.config import Config, Range, value_at
from ssd_dist.experiment import TrialRecord
from ssd_dist.experiment import TrialState as RecordState

_STUDY_NAME = "ssd_dist"
# User attributes of the study's trials.
_LATEST, _LATEST_EPOCH = "latest_checkpoint", "latest_epoch"
_BEST, _BEST_MAP = "checkpoint", "map_11pt"
_ERROR, _DIVERGED, _PRUNED = "error", "diverged", "pruned"


def open_study(path: Path, config: Config) -> optuna.Study:
    """The study in the sqlite file `path`, made if it is not there.

    TPE proposes (multivariate, seeded, aware of the trials under way); ASHA (asynchronous
    successive halving) stops. The configuration's own values are the first point to try.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = config.search
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=search.grace_epochs, reduction_factor=search.reduction_factor
    )
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=_STUDY_NAME,
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )
    num_trials = len(study.get_trials(deepcopy=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            # After a restart the same seed would draw the same random trials once more.
            seed=config.seed + num_trials,
            multivariate=True,
            constant_liar=True,
            # Ten random trials first, Optuna's default, would be all of a short search.
            n_startup_trials=min(10, max(3, search.trials // 3)),
        )
    if num_trials == 0:
        first = {name: value_at(config, name) for name in search.space}
        if all(_inside(first[name], values) for name, values in search.space.items()):
            study.enqueue_trial(first)
    return study


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The search space as Optuna writes it."""
    found: dict[str, BaseDistribution] = {}
    for name, values in space.items():
        if values.choices is not None:
            found[name] = CategoricalDistribution(values.choices)
            continue
        assert values.low is not None
        assert values.high is not None
        if values.integer:
            found[name] = IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            found[name] = FloatDistribution(values.low, values.high, log=values.log)
    return found


def trial_records(study: optuna.Study) -> list[TrialRecord]:
    """The study's trials as the leaderboard and the report show them."""
    return [_record(t) for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]


def num_finished(study: optuna.Study) -> int:
    """Trials that need no more work."""
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


def close_finished(study: optuna.Study, config: Config) -> None:
    """Closes the trials that had ended when the driver was killed, but were not told so: stopped by
    the pruner, diverged, or with the checkpoint of their last epoch stored."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.RUNNING:
            continue
        if trial.user_attrs.get(_LATEST_EPOCH) == config.epochs:
            study.tell(trial.number, max(_values(trial)))
        elif _PRUNED in trial.user_attrs and trial.intermediate_values:
            study.tell(trial.number, state=TrialState.PRUNED)


class StudySearcher(Searcher):
    """Hands Ray Tune the study's next trial, and the study what became of it.

    The trials that an earlier driver left under way come first: they go on from their last
    checkpoint, under their own number.
    """

    def __init__(self, study: optuna.Study, config: Config) -> None:
        super().__init__(metric="map_11pt", mode="max")
        self._study = study
        self._num_epochs = config.epochs
        self._distributions = distributions(config.search.space)
        self._interrupted = [
            Trial(study, t._trial_id)
            for t in study.get_trials(deepcopy=False)
            if t.state == TrialState.RUNNING
        ]
        self._trials: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: its number, its parameters, and the checkpoint that it goes on from."""
        if self._interrupted:
            trial = self._interrupted.pop(0)
            for name, distribution in self._distributions.items():
                trial._suggest(name, distribution)  # draws only what a kill left undrawn
        else:
            trial = self._study.ask(fixed_distributions=self._distributions)
        trial.set_user_attr("ray_trial_id", trial_id)
        self._trials[trial_id] = trial
        latest = trial.user_attrs.get(_LATEST)
        return {
            "number": trial.number,
            "parameters": trial.params,
            "resume": latest if latest is not None and Path(latest).is_dir() else None,
        }

    def record(self, trial_id: str) -> TrialRecord:
        """What the study knows of a Ray trial."""
        return _record(self._frozen(self._trials[trial_id]))

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Enters an epoch; True if the trial is to be stopped."""
        trial = self._trials[trial_id]
        if _DIVERGED in result:
            trial.set_user_attr(_DIVERGED, result[_DIVERGED])
            if not self._frozen(trial).intermediate_values:
                trial.report(0.0, 1)
            trial.set_user_attr(_PRUNED, True)
            return True
        epoch = int(result["epoch"])
        if epoch not in self._frozen(trial).intermediate_values:  # told once more after a kill
            trial.report(result["map_11pt"], epoch)
        if "checkpoint_path" in result:  # a trial of several workers has stored it already
            self.keep(trial_id, result["checkpoint_path"], result)
        # After its last epoch a trial is complete, whatever the pruner thinks of it.
        stop = epoch < self._num_epochs and trial.should_prune()
        if stop:
            trial.set_user_attr(_PRUNED, True)
        return stop

    def keep(self, trial_id: str, checkpoint: str, result: Mapping[str, Any]) -> None:
        """Enters where the checkpoint of the epoch `result` was stored."""
        trial = self._trials[trial_id]
        trial.set_user_attr(_LATEST, checkpoint)
        trial.set_user_attr(_LATEST_EPOCH, int(result["epoch"]))
        # Compared with what has a checkpoint: a value whose checkpoint was lost is no result.
        if result["map_11pt"] >= trial.user_attrs.get(_BEST_MAP, -math.inf):
            trial.set_user_attr(_BEST, checkpoint)
            trial.set_user_attr(_BEST_MAP, result["map_11pt"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Closes the study's trial: complete, pruned, failed, or diverged, which the sampler learns
        as pruned (at 0, if it had finished no epoch): a bad place, not an accident."""
        trial = self._trials[trial_id]
        frozen = self._frozen(trial)
        if frozen.state.is_finished():
            return
        values = _values(frozen)
        if error or not values:
            self._study.tell(trial, state=TrialState.FAIL)
        elif self._num_epochs in frozen.intermediate_values:
            self._study.tell(trial, max(values))
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial_id: str, reason: str) -> None:
        """Enters why a trial failed."""
        self._trials[trial_id].set_user_attr(_ERROR, reason)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def save(self, checkpoint_path: str) -> None:
        """Ray Tune wants a file; the state itself is the study."""
        Path(checkpoint_path).write_text(json.dumps({"state": "in the Optuna study"}))

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `save`."""


class StudyScheduler(FIFOScheduler):
    """Asks the study after each epoch whether the trial goes on."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP where the study's pruner says so, else CONTINUE."""
        stop = self._searcher.report(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Notes why a trial failed, while the study still takes notes of it."""
        reason = str(trial.get_error() or "").strip().splitlines()
        self._searcher.fail(trial.trial_id, reason[-1] if reason else "no message")


class CheckpointRecorder(Callback):
    """Tells the study where each epoch's checkpoint was stored."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """Called by Ray Tune once a checkpoint lies in the storage."""
        self._searcher.keep(trial.trial_id, checkpoint.path, trial.last_result)


def _values(trial: FrozenTrial) -> list[float]:
    return [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]


def _record(trial: FrozenTrial) -> TrialRecord:
    diverged = trial.user_attrs.get(_DIVERGED)
    values = tuple(_values(trial))
    states: dict[TrialState, RecordState] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    state: RecordState = "diverged" if diverged else states.get(trial.state, "running")
    return TrialRecord(
        number=trial.number,
        state=state,
        parameters=dict(trial.params),
        map_11pt=None if diverged else trial.user_attrs.get(_BEST_MAP),
        epochs=len(values),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        curve=values,
        checkpoint=trial.user_attrs.get(_BEST),
        error=diverged or trial.user_attrs.get(_ERROR),
    )


def _inside(value: Any, values: Range) -> bool:
    if values.choices is not None:
        return value in values.choices
    assert values.low is not None
    assert values.high is not None
    return bool(values.low <= value <= values.high)
