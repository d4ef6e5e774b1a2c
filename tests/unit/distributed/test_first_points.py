"""What is tried whatever the sampler thinks: own values, the user's, the paper's, and a grid."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import Driver, make_config

from ssd_dist.config import Config, OptimizerConfig, Range, SearchConfig
from ssd_dist.distributed.first_points import plan_search

THREE = {
    "alpha": Range(low=0.1, high=10, log=True),
    "l2_lambda": Range(low=1e-6, high=1e-2, log=True),
    "lr": Range(low=1e-5, high=1e-1, log=True),
}


def paper_point(config):
    return next(p.parameters for p in plan_search(config).points if p.origin == "paper")


def test_the_paper_is_among_the_trials_with_its_learning_rate_at_this_batch():
    """1e-3 at batch 32 with SGD: a quarter of it at batch 8; with AdamW half of it."""
    search = SearchConfig(space=THREE)
    sgd = Config(lr=0.05, global_batch_size=8, search=search)
    assert paper_point(sgd) == {"alpha": 1.0, "l2_lambda": 2.5e-4, "lr": pytest.approx(2.5e-4)}
    adamw = Config(
        lr=0.05, global_batch_size=8, optimizer=OptimizerConfig(name="adamw"), search=search
    )
    assert paper_point(adamw)["lr"] == pytest.approx(5e-4)
    assert not plan_search(sgd).notes


def test_the_papers_learning_rate_follows_the_point_and_not_the_configuration():
    space = {
        "lr": THREE["lr"],
        "global_batch_size": Range(choices=(16, 64)),
        "optimizer.name": Range(choices=("adamw", "sgd")),
        "loss.neg_pos_ratio": Range(low=1, high=6),
    }
    config = Config(global_batch_size=60, search=SearchConfig(space=space))
    assert paper_point(config) == {
        "lr": pytest.approx(2e-3),
        "global_batch_size": 64,
        "optimizer.name": "sgd",
        "loss.neg_pos_ratio": 3.0,
    }


def test_what_of_the_paper_lies_outside_is_brought_in_and_told():
    space = {
        "alpha": Range(low=2, high=5),
        "lr": Range(low=1e-2, high=1e-1),
        "optimizer.momentum": Range(low=0.1, high=0.5),
        "optimizer.name": Range(choices=("adamw",)),
        "model.norm": Range(choices=("frozen", "none")),
    }
    plan = plan_search(Config(global_batch_size=32, search=SearchConfig(space=space)))
    [paper] = plan.points  # the configuration's own alpha, 1, is outside
    assert paper.parameters == {
        "alpha": 2.0,
        "lr": 1e-2,
        "optimizer.momentum": 0.5,
        "optimizer.name": "adamw",
        "model.norm": "frozen",
    }
    assert plan.notes == (
        "the SSD paper's alpha, 1, is not in the search space; 2 is tried in its place",
        "the SSD paper's optimizer.momentum, 0.9, is not in the search space; 0.5 is tried in its "
        "place",
        "the SSD paper's optimizer.name, sgd, is not in the search space; adamw is tried in its "
        "place",
        "the SSD paper's lr scaled to the batch, 0.001, is not in the search space; 0.01 is tried "
        "in its place",
    )


def test_own_values_then_the_users_points_then_the_papers():
    config = Config(
        alpha=3.0,
        lr=0.02,
        search=SearchConfig(
            space=THREE, first_points=({"alpha": "1e0"}, {"alpha": 2, "lr": 1e-3}), trials=9
        ),
    )
    plan = plan_search(config)
    assert [point.origin for point in plan.points] == ["configuration", "user", "user", "paper"]
    own, first, second, _ = [point.parameters for point in plan.points]
    assert own == {"alpha": 3.0, "l2_lambda": 2.5e-4, "lr": 0.02}
    assert first == {"alpha": 1.0}
    assert second == {"alpha": 2.0, "lr": 1e-3}


def test_equal_points_are_tried_once():
    config = Config(lr=1e-3, global_batch_size=32, search=SearchConfig(space=THREE))
    [only] = plan_search(config).points
    assert only.parameters == {"alpha": 1.0, "l2_lambda": 2.5e-4, "lr": 1e-3}


def test_too_few_trials_for_the_first_points_are_told():
    plan = plan_search(Config(alpha=3.0, search=SearchConfig(space=THREE, trials=1)))
    assert [point.origin for point in plan.points] == ["configuration"]
    assert "1 trials are too few for all 2 first points" in plan.notes[-1]


def test_what_a_users_point_leaves_out_is_drawn(memory, tmp_path):
    driver = Driver(make_config(first_points=({"model.norm": "none"},)), memory)
    drawn = [driver.run(f"t{i}", lambda _: 0.5, tmp_path) for i in range(3)]
    assert drawn[1]["model.norm"] == "none"
    assert set(drawn[1]) == {"alpha", "global_batch_size", "model.norm"}
    origins = [trial.user_attrs.get("origin") for trial in driver.study.trials]
    assert origins == ["configuration", "user", None]  # the paper's are the configuration's


def test_points_are_queued_once_however_often_the_driver_is_killed(place):
    config = make_config(sampler="grid", num_grid_points=2, trials=5)
    for _ in range(3):
        study = Driver(config, place).study
    origins = [trial.user_attrs["origin"] for trial in study.trials]
    assert origins == ["configuration", *["grid"] * 4]


def test_a_grid_is_tried_whole_and_no_point_twice(memory, tmp_path):
    space = {
        "alpha": Range(low=0.1, high=10, log=True),
        "loss.neg_pos_ratio": Range(choices=(1, 3)),
    }
    config = make_config(space=space, sampler="grid", num_grid_points=3, trials=50, pruner="none")
    plan = plan_search(config)
    # alpha is 0.1, 1 or 10; the configuration's own values, (1, 3), are on the grid.
    assert plan.num_trials == len(plan.points) == 6
    assert plan.notes == ("5 of the grid's 6 points are tried beside the first points",)
    driver = Driver(config, memory)
    drawn = [driver.run(f"t{i}", lambda _: 0.5, tmp_path) for i in range(6)]
    assert {(round(p["alpha"], 9), p["loss.neg_pos_ratio"]) for p in drawn} == {
        (alpha, ratio) for alpha in (0.1, 1.0, 10.0) for ratio in (1, 3)
    }


def test_a_part_of_a_huge_grid():
    space = {f"data.augmentation.{name}": Range(low=0, high=1) for name in ("zoom_out", "iou_crop")}
    settings = {"space": space, "sampler": "grid", "num_grid_points": 100_000, "trials": 10}
    plans = [plan_search(Config(seed=s, search=SearchConfig(**settings))) for s in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0].points != plans[2].points
    assert len(plans[0].points) == plans[0].num_trials == 10


@given(
    low=st.floats(1e-6, 1e3),
    ratio=st.floats(1.001, 1e6),
    log=st.booleans(),
    num_points=st.integers(2, 20),
)
def test_a_grid_of_a_range_has_its_ends_and_equal_steps(low, ratio, log, num_points):
    values = Range(low=low, high=low * ratio, log=log).grid(num_points)
    assert len(values) == num_points
    assert values[0] == pytest.approx(low)
    assert values[-1] == low * ratio
    scale = math.log if log else float
    steps = [scale(b) - scale(a) for a, b in itertools.pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6, abs=1e-9 * scale(1 + low))


def test_a_grid_of_whole_numbers_and_of_choices():
    assert Range(low=2, high=5, integer=True).grid(None) == (2, 3, 4, 5)
    assert Range(low=1, high=4, integer=True).grid(9) == (1, 2, 3, 4)
    assert Range(low=1, high=100, integer=True, log=True).grid(3) == (1, 10, 100)
    assert Range(choices=("a", None)).grid(None) == ("a", None)
    with pytest.raises(ValueError, match="num_grid_points, or choices"):
        Range(low=0, high=1).grid(None)
