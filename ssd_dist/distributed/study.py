"""The search's one truth: an Optuna study in a lasting storage.

Ray Tune runs trials; what to try (`samplers`) and what to stop (`stopping`) is decided by the
study, which is stored after every epoch. So a search whose driver was killed needs no snapshot of
Ray Tune's: the study knows what is finished, and which trials were under way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ssd_dist.config import Config, Range
from ssd_dist.distributed.artifacts import attach_pictures
from ssd_dist.distributed.first_points import Plan
from ssd_dist.distributed.stopping import build_pruner
from ssd_dist.distributed.study_storage import StudyPlace, open_storage, storage_errors
from ssd_dist.experiment import TrialRecord
from ssd_dist.experiment import TrialState as RecordState

# User attributes of the study's trials. Those of the trial's best epoch so far:
CHECKPOINT, MAP = "checkpoint", "map_11pt"
# Those of its latest:
LATEST, LATEST_EPOCH = "latest_checkpoint", "latest_epoch"
# How it ended, and what it took:
ERROR, DIVERGED, PRUNED, MS_PER_IMAGE = "error", "diverged", "pruned", "ms_per_image"
FAILED = "failed"
# Where it comes from:
ORIGIN, WARM_START = "origin", "warm_start"
RAY_TRIAL, MACHINE, COMMIT, FINGERPRINT = (
    "ray_trial_id",
    "machine",
    "git_commit",
    "data_fingerprint",
)
# Validation mAP of each epoch where the study has several objectives, and so no such values itself:
CURVE = "curve"

_DIRECTIONS = {
    "map_11pt": StudyDirection.MAXIMIZE,
    "ms_per_image": StudyDirection.MINIMIZE,
}

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Such as model.feature_strides: a list is stored and read as JSON, which is enough for us.
warnings.filterwarnings("ignore", message="Choices for a categorical distribution")


def open_study(place: StudyPlace, config: Config) -> optuna.Study:
    """The study at `place`, made if it is not there.

    Raises ValueError if it was searched in another space, StudyStorageError if the storage can't be
    used; each in one sentence.
    """
    storage = open_storage(place)
    with storage_errors(place), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage,
            study_name=place.study_name,
            directions=[_DIRECTIONS[name] for name in config.search.objectives],
            pruner=build_pruner(config.search),
            load_if_exists=True,
        )
        _check_space(study, config, place)
        study.set_metric_names(list(config.search.objectives))
    return study


def load_study(place: StudyPlace) -> optuna.Study:
    """The study at `place`, to read it.

    Raises FileNotFoundError if it is not there, StudyStorageError if the storage can't be used.
    """
    absent = FileNotFoundError(f"{place.shown} does not hold the study {place.study_name!r}")
    if place.own_file and not Path(place.url.database or "").is_file():
        raise absent  # connecting would make an empty one
    storage = open_storage(place)
    with storage_errors(place):
        if place.study_name not in optuna.get_all_study_names(storage):
            raise absent
        return optuna.load_study(study_name=place.study_name, storage=storage)


def enqueue(study: optuna.Study, plan: Plan) -> None:
    """Puts the planned points in front of what the sampler will propose; those that an earlier
    driver has put there already, not again."""
    num_there = sum(ORIGIN in trial.user_attrs for trial in own_trials(study))
    for point in plan.points[num_there:]:
        study.enqueue_trial(dict(point.parameters), user_attrs={ORIGIN: point.origin})


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The search space as Optuna writes it."""
    found: dict[str, BaseDistribution] = {}
    for name, values in space.items():
        if values.choices is not None:
            # As JSON gives them back.
            choices = [list(one) if isinstance(one, tuple) else one for one in values.choices]
            found[name] = CategoricalDistribution(choices)  # type: ignore[arg-type]
            continue
        low, high = values.bounds
        if values.integer:
            found[name] = IntDistribution(int(low), int(high), log=values.log)
        else:
            found[name] = FloatDistribution(low, high, log=values.log)
    return found


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of this search, those that still wait among them; not those that it was
    warm-started from."""
    return [t for t in study.get_trials(deepcopy=False) if WARM_START not in t.user_attrs]


def num_finished(study: optuna.Study) -> int:
    """Trials that need no more work."""
    return sum(trial.state.is_finished() for trial in own_trials(study))


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Validation mAP of each epoch that a trial has finished, by epoch (1, 2, …)."""
    stored = trial.intermediate_values or trial.user_attrs.get(CURVE, {})
    return {epoch: stored[key] for epoch, key in sorted((int(key), key) for key in stored)}


def close_trial(
    study: optuna.Study,
    trial: FrozenTrial,
    num_epochs: int,
    artifacts: Path | None = None,
    *,
    error: bool = False,
) -> None:
    """Ends a running trial as it deserves: complete, pruned, failed; or diverged, which the sampler
    learns as pruned, without a value: a bad place, not an accident. The pictures of its best epoch
    are linked with it before, and kept in `artifacts`."""
    if artifacts is not None and CHECKPOINT in trial.user_attrs:
        attach_pictures(study, trial, trial.user_attrs[CHECKPOINT], artifacts)
    values = curve(trial)
    diverged = DIVERGED in trial.user_attrs
    if error or FAILED in trial.user_attrs or not (values or diverged):
        study.tell(trial.number, state=TrialState.FAIL)
    elif num_epochs not in values or diverged:
        study.tell(trial.number, state=TrialState.PRUNED)
    elif len(study.directions) == 1:
        study.tell(trial.number, max(values.values()))
    else:
        study.tell(trial.number, [max(values.values()), trial.user_attrs[MS_PER_IMAGE]])


def close_finished(study: optuna.Study, num_epochs: int, artifacts: Path | None = None) -> None:
    """Closes the trials that had ended when the driver was killed, but were not told so: stopped by
    the pruner, diverged, or with the checkpoint of their last epoch stored."""
    for trial in own_trials(study):
        if trial.state != TrialState.RUNNING:
            continue
        attributes = trial.user_attrs
        timed = len(study.directions) == 1 or MS_PER_IMAGE in attributes
        if (attributes.get(LATEST_EPOCH) == num_epochs and timed) or {PRUNED, FAILED} & set(
            attributes
        ):
            close_trial(study, trial, num_epochs, artifacts)


def trial_records(study: optuna.Study) -> list[TrialRecord]:
    """The search's trials as the leaderboard and the report show them."""
    records = [trial_record(t) for t in own_trials(study) if t.state != TrialState.WAITING]
    if len(study.directions) == 1:
        return records
    front = _pareto_front(records)
    return [replace(record, pareto=record.number in front) for record in records]


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """What the study knows of a trial; `pareto`, which depends on the others, is False."""
    diverged = trial.user_attrs.get(DIVERGED)
    values = tuple(curve(trial).values())
    states: dict[TrialState, RecordState] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return TrialRecord(
        number=trial.number,
        state="diverged" if diverged else states.get(trial.state, "running"),
        parameters=dict(trial.params),
        map_11pt=None if diverged else trial.user_attrs.get(MAP),
        epochs=len(values),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        curve=values,
        checkpoint=trial.user_attrs.get(CHECKPOINT),
        error=diverged or trial.user_attrs.get(ERROR),
        ms_per_image=trial.user_attrs.get(MS_PER_IMAGE),
    )


def _pareto_front(records: Sequence[TrialRecord]) -> set[int]:
    """Numbers of the complete trials that no other one dominates."""
    points = {
        record.number: (record.map_11pt, -record.ms_per_image)
        for record in records
        if record.state == "complete"
        and record.map_11pt is not None
        and record.ms_per_image is not None
    }

    def dominated(point: tuple[float, float]) -> bool:
        return any(
            other[0] >= point[0] and other[1] >= point[1] and other != point
            for other in points.values()
        )

    return {number for number, point in points.items() if not dominated(point)}


def _check_space(study: optuna.Study, config: Config, place: StudyPlace) -> None:
    wanted = distributions(config.search.space)
    for trial in study.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            if wanted.get(name) != distribution:
                now = wanted.get(name, "not searched")
                raise ValueError(
                    f"the study {place.study_name!r} in {place.shown} was searched in another "
                    f"space ({name} was {distribution}, now {now}): resume it with the "
                    "configuration that it was started with, or choose another --name"
                )
