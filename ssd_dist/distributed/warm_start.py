"""A search that starts from what an earlier one found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL

from ssd_dist.config import Config
from ssd_dist.distributed.study import (
    FINGERPRINT,
    MAP,
    MS_PER_IMAGE,
    WARM_START,
    distributions,
    load_study,
    own_trials,
)
from ssd_dist.distributed.study_storage import earlier_place
from ssd_dist.terminal import shown

_NUMBER = "warm_start_number"
_DONE = "warm_start_done"


@dataclass(frozen=True, slots=True)
class EarlierTrials:
    """What an earlier search's trials are to a new one: priors of its sampler, not its results."""

    folder: Path
    """The earlier experiment's."""
    trials: tuple[FrozenTrial, ...]
    """As they enter the new study."""
    skipped: Mapping[str, int]
    """Why finished trials can't be taken over → how many."""
    other_data: bool
    """Whether some were measured on other data."""

    def lines(self) -> list[str]:
        """What the user is told."""
        left_out = "; ".join(f"{count} skipped: {why}" for why, count in self.skipped.items())
        lines = [
            f"warm start: {len(self.trials)} trials of {shown(self.folder)}"
            + (f"; {left_out}" if left_out else "")
        ]
        if self.other_data:
            lines.append(
                "note: they were measured on other data: they say where to look first, and no more"
            )
        return lines


def read_earlier(folder: Path, config: Config, known: URL, fingerprint: str) -> EarlierTrials:
    """The trials of the search in `folder` that a new search can learn from: complete ones and
    those that were stopped early, not those that failed.

    Args:
        folder: the earlier experiment's; its search may still be running.
        config: the new search's.
        known: the new study's storage, whose password also holds for the earlier one if both lie in
            the same database.
        fingerprint: of the new search's data.

    Raises FileNotFoundError if there is no such search, ValueError if none of its trials can be
    taken over or the new sampler does not learn, StudyStorageError if its study can't be read.
    """
    sampler = config.search.sampler
    if sampler in ("random", "grid"):
        raise ValueError(
            f"--warm-start {shown(folder)}: the sampler {sampler} does not learn from trials; take "
            "tpe, gp or cmaes"
        )
    study = load_study(earlier_place(folder, known))
    wanted = distributions(config.search.space)
    taken: list[FrozenTrial] = []
    skipped: Counter[str] = Counter()
    prints = set()
    for trial in own_trials(study):
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        why_not = _obstacle(trial, config)
        if why_not:
            skipped[why_not] += 1
            continue
        taken.append(_as_prior(trial, config, wanted, folder))
        prints.add(trial.user_attrs.get(FINGERPRINT))
    if not taken:
        reasons = "; ".join(f"{count} {why}" for why, count in skipped.items())
        raise ValueError(
            f"--warm-start {shown(folder)}: none of its finished trials can be taken over"
            + (f" ({reasons})" if reasons else "")
        )
    return EarlierTrials(folder, tuple(taken), dict(skipped), bool(prints - {fingerprint}))


def enter_priors(study: optuna.Study, earlier: EarlierTrials) -> None:
    """Enters an earlier search's trials into a study; after a kill, those that are missing."""
    there = {trial.user_attrs[_NUMBER] for trial in prior_trials(study)}
    for trial in earlier.trials:
        if trial.user_attrs[_NUMBER] not in there:
            study.add_trial(trial)
    study.set_user_attr(_DONE, True)


def is_warm(study: optuna.Study) -> bool:
    """Whether all of the earlier search's trials have been entered."""
    return bool(study.user_attrs.get(_DONE))


def prior_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were entered from an earlier search."""
    return [t for t in study.get_trials(deepcopy=False) if WARM_START in t.user_attrs]


def _obstacle(trial: FrozenTrial, config: Config) -> str | None:
    """Why a trial can't be taken over; None if it can."""
    for name, values in config.search.space.items():
        if name not in trial.params:
            return f"{name} was not searched"
        try:
            values.admitted(trial.params[name])
        except ValueError:
            return f"{name} outside of the space"
    if trial.state == TrialState.COMPLETE:
        for objective in config.search.objectives:
            if objective == "ms_per_image" and MS_PER_IMAGE not in trial.user_attrs:
                return f"{objective} was not measured"
    return None


def _as_prior(
    trial: FrozenTrial, config: Config, wanted: Mapping[str, BaseDistribution], folder: Path
) -> FrozenTrial:
    """The trial in the new space. Its epochs' values are left out: the new search's pruner compares
    its own trials with each other only."""
    values = None
    if trial.state == TrialState.COMPLETE:
        assert trial.values is not None
        measured = {"map_11pt": trial.values[0], "ms_per_image": trial.user_attrs.get(MS_PER_IMAGE)}
        values = [measured[objective] for objective in config.search.objectives]
    return create_trial(
        state=trial.state,
        params={
            name: values_.admitted(trial.params[name])
            for name, values_ in config.search.space.items()
        },
        distributions=dict(wanted),
        values=values,
        user_attrs={WARM_START: str(folder), _NUMBER: trial.number, MAP: trial.user_attrs.get(MAP)},
    )
