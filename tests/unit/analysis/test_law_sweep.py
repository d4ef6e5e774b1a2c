"""Timing by turns with a clock of our own, and the points of the sweep."""

import math

import numpy as np
import pytest
import torch

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.sweep import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    NUM_CLASSES,
    SWEEP,
    Point,
    inference,
    measure_sweep,
    random_batch,
    sweep_for,
    time_by_turns,
    training_step,
)
from ssd_dist.config import ModelConfig
from ssd_dist.model.ssd import build_model

CPU = torch.device("cpu")


class FakeClock:
    """Stands still but for the runs it hands out, which take as long as they are told."""

    def __init__(self):
        self.now = 0.0
        self.ran = []

    def __call__(self):
        return self.now

    def run(self, name, seconds):
        def run():
            self.ran.append(name)
            self.now += seconds(self.now) if callable(seconds) else seconds

        return run


def test_runs_take_turns_within_the_budget():
    clock = FakeClock()
    runs = [clock.run("a", 1.0), clock.run("b", 0.25)]
    seconds = time_by_turns(runs, time_budget_s=10, clock=clock)
    # 1.25 s a round: one to warm up and seven more make 10 s.
    assert seconds == [[1.0] * 7, [0.25] * 7]
    assert clock.ran == ["a", "b"] * 8


@pytest.mark.parametrize(("budget", "rounds"), [(0.0, MIN_ROUNDS), (-5.0, MIN_ROUNDS), (1e9, 0)])
def test_a_few_rounds_whatever_the_budget_and_never_too_many(budget, rounds):
    clock = FakeClock()
    (seconds,) = time_by_turns([clock.run("a", 1.0)], time_budget_s=budget, clock=clock)
    assert len(seconds) == (rounds or MAX_ROUNDS)


def test_the_warm_up_is_not_counted():
    clock = FakeClock()
    (seconds,) = time_by_turns(
        [clock.run("a", lambda now: 9.0 if now == 0 else 1.0)], time_budget_s=15, clock=clock
    )
    assert seconds == [1.0] * 6


def test_a_drifting_machine_leaves_the_ratios():
    """A machine that becomes four times slower in the middle: one run after the other would have
    put all of it on the second."""
    clock = FakeClock()
    runs = [
        clock.run(name, lambda now, base=base: base * (1 if now < 50 else 4))
        for name, base in (("a", 1.0), ("b", 2.0))
    ]
    first, second = time_by_turns(runs, time_budget_s=100, clock=clock)
    assert max(first) == 4 * min(first)
    assert np.median(second) == 2 * np.median(first)


def test_progress_is_told():
    clock = FakeClock()
    lines = []
    time_by_turns([clock.run("a", 2.0)], time_budget_s=8, clock=clock, on_progress=lines.append)
    assert lines == [
        "sweep: round 1, 4 s left",
        "sweep: round 2, 2 s left",
        "sweep: round 3, 0 s left",
    ]


def test_the_sweep_varies_four_things_and_names_each_point():
    assert len(SWEEP) >= 12
    assert {point.varied for point in SWEEP} == {"width", "depth", "input size", "batch"}
    names = [point.name for point in SWEEP]
    assert len(set(names)) == len(names)
    assert names[0] == "resnet18, 128 px, batch 4"
    assert "resnet18 + neck of 512, 128 px, batch 4" in names


def test_a_gpu_gets_more_work():
    larger = sweep_for(torch.device("cuda"))
    assert sweep_for(CPU) == SWEEP
    for small, large in zip(SWEEP, larger, strict=True):
        assert large.model.image_size == 2 * small.model.image_size
        assert large.batch_size == 8 * small.batch_size
        assert large.model.neck_channels == small.model.neck_channels


def tiny(backbone="test_resnet.r160_in1k", image_size=64, batch_size=2):
    model = ModelConfig(
        backbone=backbone, image_size=image_size, feature_strides=(8, 16), neck_channels=16
    )
    return Point("input size", model, batch_size)


def test_a_step_trains_and_leaves_the_weights():
    point = tiny()
    model = build_model(point.model, NUM_CLASSES)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    statistics = {name: b.clone() for name, b in model.named_buffers() if "running_mean" in name}
    training_step(model, point, CPU)()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    buffers = dict(model.named_buffers())
    assert any(not torch.equal(old, buffers[name]) for name, old in statistics.items())
    assert model.training
    inference(model, point, CPU)()
    assert not model.training


def test_the_batch_is_one_that_training_could_have_drawn():
    batch = random_batch(3, 64)
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    real = batch.labels > 0
    assert real.sum(1).tolist() == [4, 4, 4]
    x1, y1, x2, y2 = batch.boxes_xyxy[real].unbind(-1)
    assert bool(((x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)).all())
    assert not batch.boxes_xyxy[~real].any()
    assert int(batch.labels.max()) <= NUM_CLASSES


def test_measured_points_carry_counts_for_one_picture():
    points = (tiny(), tiny(batch_size=4), tiny(image_size=96))
    lines = []
    small, batch, large = measure_sweep(points, CPU, time_budget_s=0, on_progress=lines.append)
    assert [m.point for m in (small, batch, large)] == list(points)
    assert small.weights == batch.weights
    assert small.training.macs == batch.training.macs
    # Weights and gradients are read once a batch.
    assert batch.training.bytes < small.training.bytes
    assert large.training.macs == pytest.approx(9 / 4 * small.training.macs, rel=0.1)
    cost = count_complexity(build_model(points[0].model, NUM_CLASSES), 64, batch_size=2)
    assert small.inference.macs == cost.total_macs
    assert small.training.bytes == cost.training.step.bytes_moved / 2
    for measured in (small, batch, large):
        assert measured.num_timed == MIN_ROUNDS
        for of in (measured.training.ms, measured.inference.ms):
            assert 0 < of.p10 <= of.median <= of.p90 < math.inf
    assert len(lines) == 1 + MIN_ROUNDS
