"""The ring's model by hand, its fit, and two real workers."""

import numpy as np
import pytest
import torch

from ssd_dist.analysis.scaling import (
    AllReduceTime,
    Ring,
    Scaling,
    StepTime,
    bytes_sent,
    extrapolate,
    fit_ring,
    measure_scaling,
    workers_to_measure,
)
from ssd_dist.analysis.scaling_workers import MESSAGE_BYTES
from ssd_dist.analysis.sweep import Point
from ssd_dist.config import ModelConfig

RING = Ring(bandwidth=1e9, latency_s=0.002)


def test_the_ring_by_hand():
    assert bytes_sent(100, 2) == 100
    assert bytes_sent(100, 4) == 150
    assert bytes_sent(512, 512) == 1022
    assert RING.seconds(1e8, 1) == 0
    assert RING.seconds(1e8, 2) == pytest.approx(0.1 + 0.002)
    assert RING.seconds(1e8, 4) == pytest.approx(0.15 + 0.002)
    # 6 messages, each with half of what two have together.
    assert RING.seconds_per_hop(1e8, 4) == pytest.approx(0.15 + 0.006)
    assert RING.seconds_per_hop(1e8, 2) == RING.seconds(1e8, 2)
    assert RING.seconds_per_hop(1e8, 1) == 0


def test_extrapolation_by_hand():
    last = StepTime(4, 300.0, 20.0, None, extrapolated=False)
    further = extrapolate(last, 100_000_000, RING)
    assert [step.workers for step in further] == [8, 64, 512]
    assert all(step.extrapolated for step in further)
    # 300 ms of computing; 2 · 7/8 · 100 ms of sending and 2 ms, or 7 · 2 ms, of latency.
    assert further[0].compute_ms == 300
    assert further[0].communication_ms == pytest.approx(175 + 2)
    assert further[0].communication_per_hop_ms == pytest.approx(175 + 14)
    assert further[0].step_ms == pytest.approx(477)
    assert further[2].communication_ms == pytest.approx(2 * 511 / 512 * 100 + 2)


def test_what_was_measured_is_not_extrapolated():
    last = StepTime(16, 300.0, 20.0, None, extrapolated=False)
    assert [step.workers for step in extrapolate(last, 1000, RING)] == [64, 512]


def test_the_fit_finds_bandwidth_and_latency():
    times = [
        AllReduceTime(k, num_bytes, 1000 * RING.seconds(num_bytes, k))
        for k in (2, 4)
        for num_bytes in MESSAGE_BYTES
    ]
    ring = fit_ring(times)
    assert ring.bandwidth == pytest.approx(1e9, rel=1e-4)
    assert ring.latency_s == pytest.approx(0.002, rel=1e-4)


def test_the_fit_bears_noise():
    """Errors of a tenth at every size leave the latency, a small part of the longest times, within
    a third: large messages do not decide over it."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        times = [
            AllReduceTime(2, size, 1000 * RING.seconds(size, 2) * np.exp(rng.normal(0, 0.1)))
            for size in MESSAGE_BYTES
        ]
        ring = fit_ring(times)
        assert ring.bandwidth == pytest.approx(1e9, rel=0.33)
        assert ring.latency_s == pytest.approx(0.002, rel=0.33)


def test_neither_is_negative():
    # Times that fall short of proportional: a straight line through them would begin below 0.
    times = [AllReduceTime(2, size, 1e-6 * size**1.2) for size in MESSAGE_BYTES]
    slope, intercept = np.polyfit([t.bytes for t in times], [t.ms for t in times], 1)
    assert intercept < 0 < slope
    ring = fit_ring(times)
    assert 0 <= ring.latency_s < times[0].ms / 1000
    assert ring.bandwidth > 0


def test_too_slow_and_too_fast_weigh_alike():
    times = [AllReduceTime(2, 10**6, 1000 * RING.seconds(10**6, 2))]
    times += [AllReduceTime(2, 10**9, factor * 1000) for factor in (0.5, 2.0)]
    assert fit_ring(times).bandwidth == pytest.approx(1e9, rel=0.01)


def test_one_size_does_not_tell_latency_from_bandwidth():
    with pytest.raises(ValueError, match="two sizes"):
        fit_ring([AllReduceTime(2, 1000, 1.0), AllReduceTime(2, 1000, 1.1)])


def test_efficiency_and_pictures_by_hand():
    point = Point("width", ModelConfig(), batch_size=4)
    steps = (
        StepTime(1, 400.0, 0.0, None, extrapolated=False),
        StepTime(2, 450.0, 50.0, None, extrapolated=False),
    )
    scaling = Scaling(point, 1000, steps, (), None)
    assert scaling.images_per_second(steps[0]) == pytest.approx(10)
    assert scaling.images_per_second(steps[1]) == pytest.approx(16)
    assert scaling.efficiency(steps[1]) == pytest.approx(0.8)
    mapping = scaling.to_json()
    assert mapping["model"] is None
    assert [step["step_ms"] for step in mapping["steps"]] == [400.0, 500.0]


@pytest.mark.parametrize(
    ("cores", "workers"),
    [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (100, (1, 2, 4, 8, 16))],
)
def test_workers_to_measure(cores, workers):
    assert workers_to_measure(torch.device("cpu"), cores) == workers


def test_two_real_workers():
    model = ModelConfig(
        backbone="test_resnet.r160_in1k", image_size=64, feature_strides=(8, 16), neck_channels=16
    )
    scaling = measure_scaling(
        Point("width", model, batch_size=2),
        torch.device("cpu"),
        num_workers=(1, 2),
        time_budget_s=0,
    )
    alone, together, *further = scaling.steps
    assert (alone.workers, together.workers) == (1, 2)
    assert alone.communication_ms == 0
    assert min(alone.compute_ms, together.compute_ms) > 0
    assert [time.bytes for time in scaling.all_reduces] == [*MESSAGE_BYTES, scaling.gradient_bytes]
    assert all(time.workers == 2 and time.ms > 0 for time in scaling.all_reduces)
    assert [step.workers for step in further] == [8, 64, 512]
    assert scaling.gradient_bytes % 4 == 0
    assert 0 < scaling.ring.bandwidth < float("inf")
