"""What a search may be asked for, and what is refused in one sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_dist.config import from_mapping
from ssd_dist.search_config import Range

TWO = {"alpha": {"low": 0.1, "high": 10, "log": True}, "lr": {"low": 1e-4, "high": 1e-1}}
NORM = {"model.norm": {"choices": ["batch", "none"]}}


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"sampler": "anneal"}, ["search.sampler", "tpe", "grid"]),
        ({"pruner": "hyperband"}, ["search.pruner", "asha", "median", "none"]),
        ({"objectives": []}, ["map_11pt", "none"]),
        ({"objectives": ["ms_per_image"]}, ["give map_11pt", "not ms_per_image"]),
        ({"objectives": ["map_11pt", "map_11pt"]}, ["give map_11pt"]),
        ({"objectives": ["map_11pt", "memory"]}, ["search.objectives", "memory"]),
        ({"sampler": "grid", "space": TWO}, ["grid", "alpha", "num_grid_points"]),
        ({"num_grid_points": 1}, ["num_grid_points", "1"]),
        ({"sampler": "cmaes", "space": NORM}, ["at least 2 ranges", "the space has 0"]),
        (
            {"sampler": "cmaes", "objectives": ["map_11pt", "ms_per_image"]},
            ["CMA-ES has one objective", "tpe or gp"],
        ),
        ({"first_points": [{"beta": 1}]}, ["first_points[0]", "'beta' is not in the search space"]),
        ({"first_points": [{}, {"lr": 7}]}, ["first_points[1]: lr: 7 is not within 0.0001 to 0.1"]),
        (
            {"space": NORM, "first_points": [{"model.norm": "frozen"}]},
            ["'frozen' is none of the choices 'batch', 'none'"],
        ),
        ({"repeats": {"num_seeds": 2}}, ["search.repeats.num_seeds", "3", "not 2"]),
        ({"repeats": {"top_k": -1}}, ["search.repeats.top_k", "not -1"]),
        ({"space": {"epochs": {"choices": [1, 2]}}}, ["epochs"]),
        (
            {"space": {"global_batch_size": {"low": 1.5, "high": 4, "integer": True}}},
            ["whole ends"],
        ),
        ({"space": {"optimizer.name": {"choices": ["sgd", "lion"]}}}, ["optimizer.name", "lion"]),
    ],
)
def test_what_can_not_be_searched_is_refused(search, words):
    with pytest.raises(ValueError, match=r".") as caught:
        from_mapping({"search": {"space": TWO, **search}}, source="some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "search",
    [
        {"sampler": "gp", "objectives": ["map_11pt", "ms_per_image"]},
        {"sampler": "cmaes", "space": {**TWO, **NORM}},
        {"sampler": "grid", "space": NORM},
        {"sampler": "grid", "num_grid_points": 4, "space": {**TWO, **NORM}},
        {"sampler": "random", "pruner": "none", "first_points": [{"lr": "1e-2"}]},
    ],
)
def test_what_can_be_searched(search):
    from_mapping({"search": {"space": TWO, **search}})


def test_admitted_values_are_the_ranges_own():
    assert Range(low=1, high=3, integer=True).admitted(2.0) == 2
    assert isinstance(Range(low=1, high=3, integer=True).admitted("2"), int)
    assert Range(low=0, high=1).admitted("1e-3") == 1e-3  # as YAML reads it
    assert Range(choices=([1, 2], None)).admitted([1, 2]) == [1, 2]
    for value in (2.5, "two", None, 4):
        with pytest.raises(ValueError, match=str(value)):
            Range(low=1, high=3, integer=True).admitted(value)


@given(low=st.floats(-100, 100), width=st.floats(0.1, 100), value=st.floats(-1e4, 1e4))
def test_the_nearest_value_is_in_the_range_and_none_is_nearer(low, width, value):
    values = Range(low=low, high=low + width)
    nearest = values.nearest(value)
    assert values.admitted(nearest) == nearest
    for other in (low, low + width, low + width / 3):
        assert abs(nearest - value) <= abs(other - value)


def test_the_nearest_choice():
    assert Range(choices=(8, 16, 64)).nearest(30) == 16
    assert Range(choices=(False, True)).nearest(1) is True
    assert Range(choices=("sgd", "adamw")).nearest("adamw") == "adamw"
    assert Range(choices=("sgd", "adamw")).nearest("lion") is None
    assert Range(low=1, high=4, integer=True).nearest(2.6) == 3
