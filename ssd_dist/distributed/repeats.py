"""After a search: its best configurations and the SSD paper's defaults, again and in full.

One training with one seed is a draw: the best of many trials is in part the luckiest. So the best
`top_k` configurations are trained again for all their epochs, with seeds that the search has not
used, and the SSD paper's defaults in the same way beside them. The best mean wins.

The repeats are a study of their own beside the search's, in the same storage, over nothing but the
points to be trained. So they last and go on as the search does, and the search's sampler and pruner
never see them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssd_dist.config import Config, Range, SearchConfig, value_at
from ssd_dist.distributed.first_points import Plan, PlannedPoint, paper_parameters
from ssd_dist.distributed.study import close_finished, enqueue, open_study
from ssd_dist.distributed.study_storage import StudyPlace, repeats_place, storage_errors
from ssd_dist.distributed.trial import TrialRequest
from ssd_dist.distributed.tuner import run_study
from ssd_dist.experiment import TrialRecord, ranked, reasons
from ssd_dist.repeated import Repeated
from ssd_dist.search_config import RepeatsConfig
from ssd_dist.terminal import JobFailedError, Terminal


@dataclass(frozen=True, slots=True)
class RepeatPlan:
    """What is trained again; a function of the configuration and of the search's trials."""

    config: Config
    """Its `search` is the repeats': their points are the space, and nothing is stopped."""
    configurations: tuple[Repeated, ...]
    """Without runs. The search's best first, the paper's defaults last."""
    plan: Plan
    """Each configuration with the first seed, then each with the second, … Point i is trial i of
    the repeats' study, and a training of configuration i mod `len(configurations)`."""

    def configuration(self, number: int) -> Repeated:
        """The configuration of trial `number` of the repeats' study."""
        return self.configurations[number % len(self.configurations)]

    @property
    def introduction(self) -> str:
        """What the user is told before."""
        *others, last = [one.name for one in self.configurations]
        names = f"{', '.join(others)} and {last}" if others else last
        num_seeds = self.plan.num_trials // len(self.configurations)
        return f"{names} again: {self.config.epochs} epochs with each of {num_seeds} seeds"

    def line(self, trial: TrialRecord, best: float) -> str:
        """A repeat that ended, in one line."""
        accuracy = "-" if trial.map_11pt is None else f"{trial.map_11pt:.4f}"
        return (
            f"{self.configuration(trial.number).name}, seed "
            f"{trial.parameters['seed']}: mAP {accuracy}  {trial.state} after {trial.epochs} epochs"
        )


def plan_repeats(config: Config, trials: Sequence[TrialRecord]) -> RepeatPlan | None:
    """What is to be trained again after a search; None if `search.repeats.top_k` is 0.

    The best that are not the SSD paper's defaults, and these in any case: so there is always
    something to compare. Of trials with the same configuration one counts. With several objectives
    the most accurate points of the Pareto front come first; accuracy decides among them, as time
    does not depend on the seed.

    Args:
        config: the search's.
        trials: all that it has.
    """
    repeats = config.search.repeats
    if repeats.top_k == 0:
        return None
    names = dict.fromkeys(["alpha", "l2_lambda", "lr", *config.search.space])
    names.pop("seed", None)

    def complete(parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {n: parameters[n] if n in parameters else value_at(config, n) for n in names}

    paper = complete(paper_parameters(config))
    tried: list[tuple[int, dict[str, Any]]] = []  # each once, the front first, of each the best
    rated = ranked([trial for trial in trials if trial.map_11pt is not None])
    for trial in sorted(rated, key=lambda trial: not trial.pareto):
        parameters = complete(trial.parameters)
        if all(parameters != other for _, other in tried):
            tried.append((trial.number, parameters))
    found = [(number, parameters) for number, parameters in tried if parameters != paper]
    paper_trial = next((number for number, parameters in tried if parameters == paper), None)
    configurations = [
        *(
            Repeated(parameters=parameters, trial=number, is_paper=False, runs=())
            for number, parameters in found[: repeats.top_k]
        ),
        Repeated(parameters=paper, trial=paper_trial, is_paper=True, runs=()),
    ]
    first = config.seed + 1
    return _plan(config, configurations, range(first, first + repeats.num_seeds))


def run_repeats(
    planned: RepeatPlan,
    place: StudyPlace,
    request: TrialRequest,
    terminal: Terminal,
    *,
    concurrent: int,
    attributes: Mapping[str, Any],
) -> list[Repeated]:
    """Trains what is planned and not yet done; every configuration with its runs, best mean first.

    Args:
        planned: see :func:`plan_repeats`.
        place: of the search's study.
        request: what the search's trials had in common.
        terminal: where progress is shown.
        concurrent: trainings at once.
        attributes: attached to each trial of the repeats' study.

    Raises JobFailedError if it was interrupted, or the storage was lost.
    """
    place = repeats_place(place)
    study = open_study(place, planned.config)
    with storage_errors(place):
        enqueue(study, planned.plan)
        close_finished(study, planned.config.epochs, place.artifacts)
    records = run_study(
        study,
        planned.config,
        place,
        # The time of a picture is the search's to measure.
        dataclasses.replace(request, objectives=planned.config.search.objectives),
        terminal,
        name="repeats",
        num_trials=planned.plan.num_trials,
        concurrent=concurrent,
        attributes=attributes,
        line=planned.line,
    )
    return ranked_repeats(planned, records)


def ranked_repeats(planned: RepeatPlan, records: Sequence[TrialRecord]) -> list[Repeated]:
    """The configurations with their runs, best mean first; of equals the one that the search put
    first, and last what has no value."""
    runs: dict[int, list[TrialRecord]] = {i: [] for i in range(len(planned.configurations))}
    for record in sorted(records, key=lambda record: record.number):
        runs[record.number % len(runs)].append(record)
    repeats = [
        dataclasses.replace(one, runs=tuple(runs[i]))
        for i, one in enumerate(planned.configurations)
    ]
    return sorted(repeats, key=_by_mean, reverse=True)


def best_repeat(repeats: Sequence[Repeated]) -> TrialRecord:
    """The best training of the best configuration. Raises JobFailedError if there is none.

    `repeats`: best mean first.
    """
    best = repeats[0].best_run
    if best is None:
        runs = [run for one in repeats for run in one.runs]
        raise JobFailedError(
            f"none of {len(runs)} repeats was trained to its end{reasons(runs)}; what the search "
            "found is in trials.json"
        )
    return best


def repeat_notes(repeats: Sequence[Repeated]) -> list[str]:
    """Which trainings did not end well, and what that means, a sentence each."""
    notes = []
    for one in repeats:
        for state, meaning in (
            ("diverged", "each counts as mAP 0"),
            ("failed", "they are left out of its mean"),
        ):
            number = sum(run.state == state for run in one.runs)
            if number:
                ended = f"{number} of {len(one.runs)} trainings of {one.name} {state}"
                notes.append(f"{ended}: {meaning}")
    return notes


def _plan(config: Config, configurations: Sequence[Repeated], seeds: Sequence[int]) -> RepeatPlan:
    points = tuple(
        PlannedPoint({**one.parameters, "seed": seed}, "repeat")
        for seed in seeds
        for one in configurations
    )
    space = {}
    for name in points[0].parameters:
        values = [point.parameters[name] for point in points]
        space[name] = Range(choices=tuple(v for i, v in enumerate(values) if v not in values[:i]))
    search = SearchConfig(
        space=space,
        trials=len(points),
        sampler="random",  # never asked: every value is given
        pruner="none",
        repeats=RepeatsConfig(top_k=0),
    )
    return RepeatPlan(
        dataclasses.replace(config, search=search),
        tuple(configurations),
        Plan(points, len(points), ()),
    )


def _by_mean(repeated: Repeated) -> tuple[float, bool]:
    mean = -1.0 if repeated.mean is None else repeated.mean
    return mean, repeated.best_run is not None
