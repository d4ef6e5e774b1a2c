"""What is trained again after a search, that it lasts, and who wins; without Ray's processes."""

import dataclasses
import math

import pytest
from searching import Driver, make_config

from ssd_dist.config import Config, OptimizerConfig, Range, SearchConfig, replace_at
from ssd_dist.distributed import repeats
from ssd_dist.distributed.first_points import Plan
from ssd_dist.distributed.repeats import (
    best_repeat,
    plan_repeats,
    ranked_repeats,
    repeat_notes,
    run_repeats,
)
from ssd_dist.distributed.study import num_finished, trial_records
from ssd_dist.experiment import TrialRecord
from ssd_dist.search_config import RepeatsConfig
from ssd_dist.terminal import JobFailedError, Terminal

SPACE = {
    "alpha": Range(low=0.1, high=10, log=True),
    "lr": Range(low=1e-5, high=1e-1, log=True),
}
PAPER = {"alpha": 1.0, "l2_lambda": 2.5e-4, "lr": 5e-4}  # AdamW at batch 8: 1e-3 · √(8/32)


def config_of(top_k=2, num_seeds=3, space=None, **changes):
    search = SearchConfig(
        space=SPACE if space is None else space,
        repeats=RepeatsConfig(top_k=top_k, num_seeds=num_seeds),
    )
    fields = {"alpha": 3.0, "l2_lambda": 0.02, "seed": 7, "epochs": 3, "global_batch_size": 8}
    optimizer = OptimizerConfig(name="adamw")
    return Config(**(fields | {"optimizer": optimizer, "search": search} | changes))


def record(number, map_11pt, state="complete", **parameters):
    return TrialRecord(
        number=number,
        state=state,
        parameters=parameters or {"alpha": 1.0 + number, "lr": 0.01},
        map_11pt=map_11pt,
        epochs=3,
        seconds=1.0,
        curve=(),
        checkpoint=None if map_11pt is None else f"checkpoint_{number}",
    )


def named(planned):
    return [(one.trial, one.is_paper, one.parameters) for one in planned.configurations]


def test_the_best_and_the_papers_defaults_with_seeds_of_their_own():
    trials = [record(0, 0.3), record(1, None, "diverged"), record(2, 0.9), record(3, 0.5)]
    planned = plan_repeats(config_of(), trials)
    assert named(planned) == [
        (2, False, {"alpha": 3.0, "l2_lambda": 0.02, "lr": 0.01}),  # λ is not searched
        (3, False, {"alpha": 4.0, "l2_lambda": 0.02, "lr": 0.01}),
        (None, True, PAPER),
    ]
    points = [point.parameters for point in planned.plan.points]
    assert [point["seed"] for point in points] == [8, 8, 8, 9, 9, 9, 10, 10, 10]  # the search's: 7
    for number, point in enumerate(points):
        configuration = planned.configuration(number).parameters
        assert point == {**configuration, "seed": point["seed"]}
        replace_at(config_of(), point)  # is one
    assert planned.config.search.pruner == "none"
    assert planned.config.epochs == 3


def test_the_papers_defaults_are_trained_as_they_are_outside_of_the_space():
    space = {
        "alpha": Range(low=2, high=5),
        "lr": Range(low=1e-2, high=1e-1),
        "optimizer.name": Range(choices=("adamw",)),
        "model.norm": Range(choices=("frozen", "none")),
    }
    trial = record(0, 0.5, **{"alpha": 2.0, "lr": 0.05, "optimizer.name": "adamw"})
    config = config_of(space=space)
    *_, paper = plan_repeats(config, [trial]).configurations
    assert paper.parameters == {
        "alpha": 1.0,
        "l2_lambda": 2.5e-4,
        "lr": pytest.approx(2.5e-4),  # SGD at batch 8
        "optimizer.name": "sgd",
        "model.norm": "batch",  # on which the paper says nothing: the configuration's
    }


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_papers_defaults_are_not_trained_twice(top_k):
    space = {**SPACE, "l2_lambda": Range(low=1e-6, high=1, log=True)}
    trials = [record(0, 0.9, **PAPER), record(1, 0.8, alpha=2.0, l2_lambda=0.1, lr=0.1)]
    planned = plan_repeats(config_of(top_k, space=space), trials)
    assert [(one.trial, one.is_paper) for one in planned.configurations] == [(1, False), (0, True)]
    assert planned.plan.num_trials == 6
    assert "trial 1 and the paper's defaults (trial 0)" in planned.introduction
    alone = plan_repeats(config_of(top_k, space=space), trials[:1])
    assert [(one.trial, one.is_paper) for one in alone.configurations] == [(0, True)]


def test_a_configuration_that_was_tried_twice_counts_once():
    trials = [record(0, 0.8, alpha=2.0, lr=0.1), record(1, 0.9, alpha=2.0, lr=0.1), record(2, 0.1)]
    planned = plan_repeats(config_of(), trials)
    assert [one.trial for one in planned.configurations] == [1, 2, None]


def test_of_several_objectives_the_front_comes_first():
    trials = [record(0, 0.9), record(1, 0.8), record(2, 0.7), record(3, 0.6)]
    trials = [dataclasses.replace(t, pareto=t.number in (1, 3)) for t in trials]
    planned = plan_repeats(config_of(top_k=3), trials)
    assert [one.trial for one in planned.configurations] == [1, 3, 0, None]


def test_nothing_is_repeated_where_nothing_is_to_be():
    assert plan_repeats(config_of(top_k=0), [record(0, 0.8)]) is None


def test_a_searched_seed_gives_way_to_the_repeats():
    space = {**SPACE, "seed": Range(choices=(1, 2, 3))}
    planned = plan_repeats(config_of(space=space), [record(0, 0.5, alpha=2.0, lr=0.1, seed=2)])
    assert [point.parameters["seed"] for point in planned.plan.points] == [8, 8, 9, 9, 10, 10]


def runs(planned, values, **states):
    """The repeats' trials with these values, in their order."""
    return [
        record(number, value, states.get(f"at_{number}", "complete"), **point.parameters)
        for number, (point, value) in enumerate(zip(planned.plan.points, values, strict=True))
    ]


def test_the_best_mean_wins_and_not_the_luckiest_seed():
    planned = plan_repeats(config_of(), [record(0, 0.9), record(1, 0.8)])
    #          trial 0, trial 1, paper   with each seed
    values = [0.95, 0.80, 0.70, 0.50, 0.82, 0.71, 0.52, 0.84, 0.69]
    found = ranked_repeats(planned, runs(planned, values)[::-1])
    assert [one.name for one in found] == ["trial 1", "the paper's defaults", "trial 0"]
    assert found[0].values == (0.80, 0.82, 0.84)
    assert found[0].mean == pytest.approx(0.82)
    assert found[0].std == pytest.approx(0.02)
    assert best_repeat(found).number == 7
    assert best_repeat(found).parameters["seed"] == 10
    assert found[0].summary() == {
        "trial": 1,
        "is_paper": False,
        "seeds": [8, 9, 10],
        "values": [0.80, 0.82, 0.84],
        "mean": pytest.approx(0.82),
        "std": pytest.approx(0.02),
    }


def test_a_seed_that_diverges_counts_as_nothing_found_and_is_told():
    planned = plan_repeats(config_of(top_k=1), [record(0, 0.9)])
    values = [0.9, 0.5, None, 0.5, None, 0.5]
    found = ranked_repeats(planned, runs(planned, values, at_2="diverged", at_4="failed"))
    paper, best = found
    assert paper.is_paper
    assert best.values == (0.9, 0.0)
    assert best.mean == pytest.approx(0.45)
    assert repeat_notes(found) == [
        "1 of 3 trainings of trial 0 diverged: each counts as mAP 0",
        "1 of 3 trainings of trial 0 failed: they are left out of its mean",
    ]


def test_what_was_never_measured_can_not_win():
    planned = plan_repeats(config_of(top_k=1), [record(0, 0.9)])
    states = {f"at_{i}": "failed" for i in (0, 2, 4)} | {f"at_{i}": "diverged" for i in (1, 3)}
    found = ranked_repeats(planned, runs(planned, [None] * 5 + [0.0], **states))
    assert [one.mean for one in found] == [0.0, None]
    assert best_repeat(found).number == 5
    with pytest.raises(JobFailedError, match=r"none of 6 repeats .* trials\.json"):
        best_repeat(ranked_repeats(planned, runs(planned, [None] * 6, **states, at_5="failed")))


class KillError(Exception):
    """The driver's end."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A TrialRequest, as far as it is seen from here."""

    objectives: tuple[str, ...]


@pytest.fixture
def trainings(monkeypatch, tmp_path):
    """In the place of Ray Tune: (trial, epoch) of what is trained, and, to be set, how many epochs
    it is until the driver is killed."""
    trained, left = [], [math.inf]

    def run_study(study, config, place, request, terminal, *, num_trials, **more):
        assert request.objectives == ("map_11pt",)
        driver = Driver(config, place, study, Plan((), 0, ()))
        while num_finished(study) < num_trials:
            ray_id = f"ray-{len(trained)}"
            suggestion = driver.start(ray_id)
            done = 0 if suggestion["resume"] is None else int(suggestion["resume"][-1])
            for epoch in range(done + 1, config.epochs + 1):
                if left[0] == 0:
                    raise KillError
                left[0] -= 1
                number = suggestion["number"]
                trained.append((number, epoch))
                value = (1 + number % 2) * epoch / 10  # the paper's defaults are the better ones
                stop = driver.epoch(ray_id, epoch, value, tmp_path / f"trial-{number}-{epoch}")
                assert not stop
            driver.searcher.on_trial_complete(ray_id, {})
        return trial_records(study)

    monkeypatch.setattr(repeats, "run_study", run_study)
    return trained, left


def test_killed_repeats_go_on_and_nothing_is_trained_twice(trainings, place, tmp_path):
    trained, left = trainings
    objectives = ("map_11pt", "ms_per_image")
    settings = {"trials": 2, "objectives": objectives, "repeats": RepeatsConfig(top_k=1)}
    search = Driver(make_config(**settings), place)
    for name in ("a", "b"):
        search.run(name, lambda parameters: 0.5, tmp_path, ms_per_image=2.0)
    before = trial_records(search.study)

    def go_on():
        planned = plan_repeats(search.config, trial_records(search.study))
        return run_repeats(
            planned, place, Request(objectives), Terminal(), concurrent=1, attributes={}
        )

    for _ in range(2):  # killed after four epochs of eighteen, and after nine
        left[0] = 4 + len(trained) // 4
        with pytest.raises(KillError):
            go_on()
    left[0] = math.inf
    found = go_on()
    assert trained == [(number, epoch) for number in range(6) for epoch in (1, 2, 3)]
    assert [(one.is_paper, one.values) for one in found] == [
        (True, pytest.approx((0.6, 0.6, 0.6))),
        (False, pytest.approx((0.3, 0.3, 0.3))),
    ]
    assert go_on() == found
    assert len(trained) == 18
    assert trial_records(search.study) == before  # the search's own study is as it was
