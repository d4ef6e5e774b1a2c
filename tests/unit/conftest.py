"""What the tests of several parts share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ssd_dist.analysis.law import Law
from ssd_dist.analysis.scaling import AllReduceTime, Ring, Scaling, StepTime, extrapolate
from ssd_dist.analysis.sweep import BASE, SWEEP, Measured, MeasuredPoint
from ssd_dist.analysis.timing import Percentiles

RING = Ring(bandwidth=1e9, latency_s=2e-4)


@pytest.fixture
def one_thread():
    """Torch with as many threads as a worker has; with its own again afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_law() -> Callable[..., Law]:
    """Makes a law whose counts are drawn, log-uniform and independent, for the sweep's points, and
    whose times, in milliseconds, are `time_of(weights, macs, bytes)` times some noise."""

    def make(time_of, *, noise=0.05, num_workers=(1, 2)) -> Law:
        rng = np.random.default_rng(0)
        points = []
        for point in SWEEP:
            weights, macs, bytes_ = np.exp(rng.uniform(0, 3, 3)) * [1e6, 1e8, 1e7]
            ms = time_of(weights, macs, bytes_) * np.exp(noise * rng.normal())
            step = Percentiles(median=ms, p10=0.9 * ms, p90=1.2 * ms)
            inference = Percentiles(median=ms / 3, p10=ms / 4, p90=ms / 2)
            points.append(
                MeasuredPoint(
                    point,
                    int(weights),
                    Measured(macs, bytes_, step),
                    Measured(macs / 3, bytes_ / 3, inference),
                    num_timed=5,
                )
            )
        steps = [StepTime(k, 400.0, 10.0 * (k - 1), None, extrapolated=False) for k in num_workers]
        reductions = tuple(
            AllReduceTime(k, num_bytes, 1000 * RING.seconds(num_bytes, k))
            for k in num_workers[1:]
            for num_bytes in (1 << 16, 1 << 20, 1 << 24)
        )
        ring = RING if reductions else None
        further = extrapolate(steps[-1], 40_000_000, RING) if reductions else []
        scaling = Scaling(BASE, 40_000_000, (*steps, *further), reductions, ring)
        return Law(tuple(points), "cpu", 2, scaling)

    return make
