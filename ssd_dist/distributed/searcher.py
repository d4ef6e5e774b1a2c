"""How Ray Tune asks the study: what to try next, whether to stop, what became of a trial."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import Config
from ssd_dist.distributed.buckets import (
    is_directory,
    local_copy,
    located,
    reason,
    shown_location,
)
from ssd_dist.distributed.patience import is_full
from ssd_dist.distributed.samplers import build_sampler
from ssd_dist.distributed.study import (
    CHECKPOINT,
    CURVE,
    DIVERGED,
    ERROR,
    FAILED,
    LATEST,
    LATEST_EPOCH,
    MACHINE,
    MAP,
    MS_PER_IMAGE,
    PRUNED,
    RAY_TRIAL,
    close_trial,
    curve,
    distributions,
    trial_record,
)
from ssd_dist.distributed.study_storage import (
    StudyPlace,
    StudyStorageError,
    disk_failure,
    storage_errors,
)
from ssd_dist.distributed.warm_start import prior_trials
from ssd_dist.experiment import TrialRecord

PAUSES_S = (1.0, 2.0, 4.0, 8.0, *[15.0] * 7)
"""How long a search waits for a study that can't be read or written, before it stops: two minutes,
as the workers wait for their storage."""

_Result = TypeVar("_Result")


class StudySearcher(Searcher):
    """Hands Ray Tune the study's next trial, and the study what became of it.

    The trials that an earlier driver left under way come first: they go on from their last
    checkpoint, under their own number. Once the storage can't be written any more, nothing is
    entered or started, and `failure` says why: what was under way stays so in the study.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: Config,
        place: StudyPlace,
        attributes: Mapping[str, Any],
        storage: str = "",
    ) -> None:
        """`attributes` are attached to every trial that it hands out; `storage` is where the
        checkpoints lie, if that is a URI."""
        super().__init__(metric="map_11pt", mode="max")
        self._study = study
        self._place = place
        self._config = config
        self._attributes = dict(attributes)
        self._storage = storage
        self._distributions = distributions(config.search.space)
        self._priors = prior_trials(study)
        self._trials: dict[str, Trial] = {}
        self.failure: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune pickles it into a snapshot, which nothing here reads: no password is to go along.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """The next trial: its number, its parameters, and the checkpoint that it goes on from."""
        trial = self._stored(lambda: self._next_trial(trial_id))
        if trial is None:
            return Searcher.FINISHED
        self._trials[trial_id] = trial
        latest = trial.user_attrs.get(LATEST)
        try:
            resume = latest if latest is not None and is_directory(latest) else None
        except OSError as error:
            self.failure = f"{shown_location(str(latest))} can't be read: {reason(error)}"
            return Searcher.FINISHED
        return {"number": trial.number, "parameters": trial.params, "resume": resume}

    def record(self, trial_id: str) -> TrialRecord | None:
        """What the study knows of a Ray trial; None if its storage is lost."""
        return self._stored(lambda: trial_record(self._frozen(self._trials[trial_id])))

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Enters an epoch; True if the trial is to be stopped."""
        return self._stored(lambda: self._enter(self._trials[trial_id], result)) is not False

    def keep(self, trial_id: str, checkpoint: str, result: Mapping[str, Any]) -> None:
        """Enters where the checkpoint of the epoch `result` was stored."""
        location = located(checkpoint, self._storage)
        self._stored(lambda: _enter_checkpoint(self._trials[trial_id], location, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Closes the study's trial."""
        self._stored(lambda: self._close(self._trials[trial_id], error=error))

    def fail(self, trial_id: str, reason: str) -> None:
        """Enters why a trial failed; or stops the search, if a disk is full or read-only: every
        trial would fail, and none of them deserves it."""
        lost = disk_failure(reason)
        if lost is not None:
            self.failure = self.failure or lost
        lines = reason.strip().splitlines()
        self._stored(
            lambda: self._trials[trial_id].set_user_attr(
                ERROR, lines[-1] if lines else "no message"
            )
        )

    def save(self, checkpoint_path: str) -> None:
        """Ray Tune wants a file; the state itself is the study."""
        Path(checkpoint_path).write_text(json.dumps({"state": "in the Optuna study"}))

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `save`."""

    def _next_trial(self, trial_id: str) -> Trial:
        trials = self._study.get_trials(deepcopy=False)
        mine = {trial.number for trial in self._trials.values()}
        left = [t for t in trials if t.state == TrialState.RUNNING and t.number not in mine]
        num_before = left[0].number if left else len(trials) - _num_waiting(trials)
        self._study.sampler = build_sampler(
            self._config.search, self._config.seed, num_before, self._priors
        )
        if left:
            trial = Trial(self._study, left[0]._trial_id)
            for name, distribution in self._distributions.items():
                trial._suggest(name, distribution)  # draws only what a kill left undrawn
        else:
            trial = self._study.ask(fixed_distributions=self._distributions)
        for name, value in {**self._attributes, RAY_TRIAL: trial_id}.items():
            trial.set_user_attr(name, value)
        return trial

    def _enter(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Enters a report; True if the trial is to be stopped."""
        if MACHINE in result and MACHINE not in trial.user_attrs:
            trial.set_user_attr(MACHINE, result[MACHINE])
        if DIVERGED in result:
            trial.set_user_attr(DIVERGED, result[DIVERGED])
            trial.set_user_attr(PRUNED, True)
            return True
        if FAILED in result:
            trial.set_user_attr(ERROR, result[FAILED])
            trial.set_user_attr(FAILED, True)
            return True
        epoch = int(result["epoch"])
        known = curve(self._frozen(trial))
        values = {**self._missed(result, known), epoch: result["map_11pt"]}
        new = {one: values[one] for one in values.keys() - known.keys()}  # none is told twice
        if len(self._study.directions) == 1:
            for one, value in sorted(new.items()):
                trial.report(value, one)
        elif new:  # Optuna takes no intermediate values then
            trial.set_user_attr(CURVE, {**known, **new})
        if MS_PER_IMAGE in result:
            trial.set_user_attr(MS_PER_IMAGE, result[MS_PER_IMAGE])
        if "checkpoint_path" in result:  # a trial of several workers has stored it already
            location = located(result["checkpoint_path"], self._storage)
            _enter_checkpoint(trial, location, result)
        # After its last epoch a trial is complete, whatever the pruner thinks of it.
        single = len(self._study.directions) == 1
        # bool(): the median pruner answers with numpy's.
        stop = single and epoch < self._config.epochs and bool(trial.should_prune())
        if stop:
            trial.set_user_attr(PRUNED, True)
        return stop

    def _missed(self, result: Mapping[str, Any], known: Mapping[int, float]) -> dict[int, float]:
        """mAP of the epochs before a report's by its checkpoint, if the study lacks one: what a
        trial of several workers has done when it is stopped may not have been told any more."""
        if "checkpoint_path" not in result or result["epoch"] <= len(known) + 1:
            return {}
        # A checkpoint that can't be read costs a value, and nothing else.
        with (
            contextlib.suppress(OSError, ValueError),
            local_copy(located(result["checkpoint_path"], self._storage)) as folder,
        ):
            history = load_checkpoint(folder).history
            return {int(epoch["epoch"]): epoch["map_11pt"] for epoch in history}
        return {}

    def _close(self, trial: Trial, *, error: bool) -> None:
        frozen = self._frozen(trial)
        if frozen.state.is_finished():
            return
        num_epochs = self._config.epochs
        timed = len(self._study.directions) == 1 or MS_PER_IMAGE in frozen.user_attrs
        if num_epochs in curve(frozen) and not (timed or error):
            trial.set_user_attr(ERROR, "its time per image was not measured")
            error = True
        close_trial(self._study, frozen, num_epochs, self._place.artifacts, error=error)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _stored(self, action: Callable[[], _Result]) -> _Result | None:
        """Does what reads or writes the study, and waits a little for a database that does not
        answer; None, and `failure` is set, if it can't be done. The action may be done in part
        and again."""
        for pause in (*PAUSES_S, None):
            if self.failure is not None:
                return None
            try:
                with storage_errors(self._place):
                    return action()
            except StudyStorageError as error:
                if pause is None or is_full(error):
                    self.failure = str(error)
                else:
                    time.sleep(pause)
        return None


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
        self._searcher.fail(trial.trial_id, last_failure(trial))


def last_failure(trial: Any) -> str:
    """What Ray Tune wrote down of a trial's last failure; empty if nothing.

    From the driver's own file: the one in the storage, which `trial.get_error()` reads, may not
    have it yet.
    """
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # there is no file, or no name of one
        return ""
    return text.rpartition("Failure # ")[2].partition("\n")[2].strip()


class CheckpointRecorder(Callback):
    """Tells the study where each epoch's checkpoint was stored."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """Called by Ray Tune once a checkpoint lies in the storage."""
        self._searcher.keep(trial.trial_id, checkpoint.path, trial.last_result)


class StorageGuard(Stopper):
    """Ends the search once the study's storage is lost."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Nothing of one trial ends it; see `stop_all`."""
        return False

    def stop_all(self) -> bool:
        """Whether to end every trial, and start none."""
        return self._searcher.failure is not None


def _enter_checkpoint(trial: Trial, checkpoint: str, result: Mapping[str, Any]) -> None:
    # Compared with what has a checkpoint: a value whose checkpoint was lost is no result.
    if result["map_11pt"] >= trial.user_attrs.get(MAP, -math.inf):
        trial.set_user_attr(CHECKPOINT, checkpoint)
        trial.set_user_attr(MAP, result["map_11pt"])
    trial.set_user_attr(LATEST, checkpoint)
    trial.set_user_attr(LATEST_EPOCH, int(result["epoch"]))


def _num_waiting(trials: list[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.WAITING for trial in trials)
