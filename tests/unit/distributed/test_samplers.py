"""One suite for every sampler: what it proposes is in the space, repeatable, and learned."""

import math

import pytest
from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler
from searching import Driver, make_config

from ssd_dist.config import Range, SearchConfig
from ssd_dist.distributed.samplers import build_sampler, sampler_notes

SAMPLERS = ("tpe", "gp", "cmaes", "random", "grid")
SPACE = {
    "alpha": Range(low=0.1, high=10, log=True),
    "lr": Range(low=1e-4, high=1e-1, log=True),
    "global_batch_size": Range(low=2, high=8, integer=True),
    "model.norm": Range(choices=("batch", "none")),
}


def value_of(parameters):
    """Best at alpha = 3, lr = 0.003."""
    distance = math.log10(parameters["alpha"] / 3) ** 2 + math.log10(parameters["lr"] / 3e-3) ** 2
    return math.exp(-distance)


def search(sampler, memory, tmp_path, *, num_trials=9, seed=0, space=SPACE, **settings):
    config = make_config(
        sampler=sampler, trials=num_trials, seed=seed, num_grid_points=2, pruner="none",
        space=space, epochs=1, **settings,
    )  # fmt: skip
    driver = Driver(config, memory)
    return driver, [driver.run(f"t{i}", value_of, tmp_path) for i in range(num_trials)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_to_the_space_and_to_its_seed(sampler, memory, tmp_path):
    _, drawn = search(sampler, memory, tmp_path, num_trials=7)
    for parameters in drawn:
        assert set(parameters) == set(SPACE)
        for name, value in parameters.items():
            assert SPACE[name].admitted(value) == value
    assert len({str(parameters) for parameters in drawn}) == 7


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_two_objectives(sampler, memory, tmp_path):
    config = make_config(
        sampler=sampler, trials=6, space=SPACE, epochs=1, objectives=("map_11pt", "ms_per_image")
    )
    driver = Driver(config, memory)
    for index in range(6):
        driver.run(f"t{index}", value_of, tmp_path, ms_per_image=10.0 + index)
    assert [len(trial.values) for trial in driver.study.trials] == [2] * 6


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_samplers_that_learn_come_nearer_than_chance(sampler, memory, tmp_path):
    """The mean of the last third against what random draws have on average, 0.38."""
    space = {name: SPACE[name] for name in ("alpha", "lr")}
    _, drawn = search(sampler, memory, tmp_path, num_trials=30, space=space)
    late = [value_of(parameters) for parameters in drawn[20:]]
    assert sum(late) / len(late) > 0.5


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        ("tpe", TPESampler),
        ("gp", GPSampler),
        ("cmaes", CmaEsSampler),
        ("random", RandomSampler),
        ("grid", RandomSampler),
    ],
)
def test_each_trial_has_a_seed_of_its_own(sampler, kind):
    """And searches of neighbouring seeds share none of their trials."""
    settings = SearchConfig(sampler=sampler, num_grid_points=2)
    drawn = set()
    for seed in (0, 1):
        for num_trials in range(20):
            one = build_sampler(settings, seed, num_trials)
            assert isinstance(one, kind)
            random = getattr(one, "_independent_sampler", one)
            drawn.add(random._rng.rng.random_sample())
    assert len(drawn) == 40


def test_what_a_sampler_can_not_do_is_told():
    assert not sampler_notes(SearchConfig(space=SPACE))
    [note] = sampler_notes(SearchConfig(space=SPACE, sampler="cmaes"))
    assert note == "CMA-ES knows no categories: model.norm is drawn at random"
    [note] = sampler_notes(SearchConfig(space=SPACE, sampler="gp"))
    assert "complete trials only" in note
    [note] = sampler_notes(SearchConfig(objectives=("map_11pt", "ms_per_image"), sampler="gp"))
    assert "Pareto front of map_11pt and ms_per_image" in note
    assert "no trial is stopped early" in note
