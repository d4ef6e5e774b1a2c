"""The points that a search tries before its sampler proposes any, and those of a grid."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ssd_dist.config import Config, value_at
from ssd_dist.terminal import format_value

PAPER_BATCH_SIZE = 32
PAPER_LR = 1e-3
PAPER_VALUES: Mapping[str, Any] = {
    "alpha": 1.0,
    "l2_lambda": 2.5e-4,  # weight decay 5e-4 = 2 lambda
    "loss.iou_threshold": 0.5,
    "loss.neg_pos_ratio": 3.0,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
}
"""The SSD paper's settings (Liu et al. 2016, sections 2.2 and 3), beside the learning rate."""

Origin = Literal["configuration", "user", "paper", "grid", "repeat"]


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """A point that a search tries whatever its sampler thinks."""

    parameters: Mapping[str, Any]
    """Dotted path in the configuration → value; what is missing, the sampler draws."""
    origin: Origin


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a search's trials before it starts; a function of its configuration."""

    points: tuple[PlannedPoint, ...]
    """In the order in which they are tried; at most `num_trials`."""
    num_trials: int
    """Trials in all: those configured, or fewer where a grid ends before."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""


def plan_search(config: Config) -> Plan:
    """The first points of a search, and the points of a grid. No point is planned twice.

    First the configuration's own values, if they lie in the space; then `search.first_points`; then
    the SSD paper's values, brought into the space; then a grid, where that is the sampler.
    """
    search = config.search
    paper, notes = _paper_point(config)
    first = _distinct([*_own_point(config), *_user_points(config), paper])
    num_trials = search.trials
    if len(first) > num_trials:
        notes.append(
            f"{num_trials} trials are too few for all {len(first)} first points; the last of them "
            "are not tried"
        )
    if search.sampler == "grid":
        axes = {name: one.grid(search.num_grid_points) for name, one in search.space.items()}
        drawn = _draw_from_grid(axes, num_trials + len(first), config.seed)
        size = math.prod(map(len, axes.values()))
        first = _distinct([*first, *drawn])
        # All of the grid was drawn if it is small enough to end before the trials do.
        num_trials = min(num_trials, len(first))
        num_tried = sum(point.origin == "grid" for point in first[:num_trials])
        notes.append(f"{num_tried} of the grid's {size} points are tried beside the first points")
    return Plan(tuple(first[:num_trials]), num_trials, tuple(notes))


def paper_parameters(config: Config) -> dict[str, Any]:
    """The SSD paper's defaults as they are, whether or not they lie in the space: alpha, lambda and
    the scaled learning rate, and of the other searched fields those that it names; for what it does
    not name, the configuration's own value."""
    names = dict.fromkeys(["alpha", "l2_lambda", *config.search.space])
    point = {name: PAPER_VALUES.get(name, value_at(config, name)) for name in names if name != "lr"}
    return {**point, "lr": _paper_lr(config, point)}


def _own_point(config: Config) -> list[PlannedPoint]:
    """The configuration's own values; none if one of them is not in the space."""
    try:
        own = {
            name: values.admitted(value_at(config, name))
            for name, values in config.search.space.items()
        }
    except ValueError:
        return []
    return [PlannedPoint(own, "configuration")]


def _user_points(config: Config) -> list[PlannedPoint]:
    space = config.search.space
    return [
        PlannedPoint({name: space[name].admitted(value) for name, value in point.items()}, "user")
        for point in config.search.first_points
    ]


def _paper_point(config: Config) -> tuple[PlannedPoint, list[str]]:
    """The SSD paper's values, brought into the space; where it names none, the configuration's."""
    notes = []
    point: dict[str, Any] = {}
    # The learning rate comes last: it depends on the point's batch size and optimizer.
    for name, values in sorted(config.search.space.items(), key=lambda item: item[0] == "lr"):
        own = value_at(config, name)
        wanted = _paper_lr(config, point) if name == "lr" else PAPER_VALUES.get(name, own)
        taken = values.nearest(wanted)
        if taken is None:
            taken = values.nearest(own)
        if taken is None:
            taken = values.examples()[0]
        point[name] = taken
        if taken != wanted and (name == "lr" or name in PAPER_VALUES):
            label = f"{name} scaled to the batch" if name == "lr" else name
            notes.append(
                f"the SSD paper's {label}, {format_value(wanted)}, is not in the search space; "
                f"{format_value(taken)} is tried in its place"
            )
    ordered = {name: point[name] for name in config.search.space}
    return PlannedPoint(ordered, "paper"), notes


def _paper_lr(config: Config, point: Mapping[str, Any]) -> float:
    """The SSD paper's learning rate, 1e-3 for SGD at batch 32, at this point's batch size: scaled
    linearly (Goyal et al. 2017). For AdamW, on which the paper says nothing: its customary 1e-3 at
    the same batch, scaled with the square root (Malladi et al. 2022)."""
    scale = point.get("global_batch_size", config.global_batch_size) / PAPER_BATCH_SIZE
    optimizer = point.get("optimizer.name", config.optimizer.name)
    return PAPER_LR * (scale if optimizer == "sgd" else math.sqrt(scale))


def _draw_from_grid(
    axes: Mapping[str, tuple[Any, ...]], num_points: int, seed: int
) -> list[PlannedPoint]:
    """Up to `num_points` points of the grid, none twice, in an order drawn by `seed`."""
    size = math.prod(map(len, axes.values()))
    points = []
    for index in random.Random(seed).sample(range(size), min(size, num_points)):
        point = {}
        for name, values in axes.items():
            index, place = divmod(index, len(values))
            point[name] = values[place]
        points.append(PlannedPoint(point, "grid"))
    return points


def _distinct(points: Iterable[PlannedPoint]) -> list[PlannedPoint]:
    """Of points with the same parameters the first."""
    kept: dict[str, PlannedPoint] = {}
    for point in points:
        kept.setdefault(repr(sorted(point.parameters.items())), point)
    return list(kept.values())
