"""Data-parallel scaling: a step's time against the number of workers, and a model of it.

Every worker keeps its own batch (weak scaling), so that computing takes the same time whatever
their number k, and what grows is the time to average the gradients. A ring all-reduce sends
2(k - 1) messages of bytes / k along the ring (Patarasuk and Yuan 2009):

    seconds(bytes, k) = 2 (k - 1) / k · bytes / bandwidth + latency
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from scipy.optimize import least_squares

from ssd_dist.analysis.scaling_workers import measure_workers
from ssd_dist.analysis.sweep import Point

EXTRAPOLATED_TO = (8, 64, 512)
MAX_MEASURED = 16
FORMULA = "2(k − 1)/k · bytes / bandwidth + latency"


@dataclass(frozen=True, slots=True)
class StepTime:
    """A training step of k workers together."""

    workers: int
    compute_ms: float
    """Without averaging the gradients (of the slowest worker)."""
    communication_ms: float
    """Measured: what averaging adds to the step, which may be less than it takes, as it begins
    during the backward pass. Extrapolated: all of it, after the ring's model."""
    communication_per_hop_ms: float | None
    """Extrapolated likewise, but with latency on each of the ring's 2(k - 1) messages; None where
    measured."""
    extrapolated: bool

    @property
    def step_ms(self) -> float:
        """Computing and communication."""
        return self.compute_ms + self.communication_ms


@dataclass(frozen=True, slots=True)
class AllReduceTime:
    """One all-reduce of k workers."""

    workers: int
    bytes: int
    ms: float


@dataclass(frozen=True, slots=True)
class Ring:
    """The model of an all-reduce."""

    bandwidth: float
    """Bytes a second."""
    latency_s: float

    def seconds(self, num_bytes: float, workers: int) -> float:
        """Seconds to sum `num_bytes` over `workers`; 0 for one worker alone."""
        if workers == 1:
            return 0.0
        return bytes_sent(num_bytes, workers) / self.bandwidth + self.latency_s

    def seconds_per_hop(self, num_bytes: float, workers: int) -> float:
        """The same if each of the 2(k - 1) messages waits as long as the two of two workers, whose
        latencies together are `latency_s`."""
        hops = 2 * (workers - 1)
        return bytes_sent(num_bytes, workers) / self.bandwidth + hops * self.latency_s / 2


@dataclass(frozen=True, slots=True)
class Scaling:
    """What was measured, the model fitted to it, and what the model says of more workers."""

    point: Point
    gradient_bytes: int
    """4 for each parameter: what a step sums over the workers."""
    steps: tuple[StepTime, ...]
    """Measured ones, then extrapolated ones."""
    all_reduces: tuple[AllReduceTime, ...]
    ring: Ring | None
    """None where no more than one worker fits the machine: then nothing is extrapolated."""

    def to_json(self) -> dict[str, Any]:
        """Plain mappings; every step says whether it is `extrapolated`."""
        return {
            "point": self.point.name,
            "batch_size_per_worker": self.point.batch_size,
            "gradient_bytes": self.gradient_bytes,
            "steps": [
                {
                    **asdict(step),
                    "step_ms": step.step_ms,
                    "images_per_second": self.images_per_second(step),
                    "efficiency": self.efficiency(step),
                }
                for step in self.steps
            ],
            "all_reduces": [asdict(measured) for measured in self.all_reduces],
            "model": None
            if self.ring is None
            else {
                "formula": FORMULA,
                "bandwidth_bytes_per_s": self.ring.bandwidth,
                "latency_ms": 1000 * self.ring.latency_s,
            },
            "assumption": ASSUMPTION,
        }

    def images_per_second(self, step: StepTime) -> float:
        """Pictures that all workers together train on in a second."""
        return 1000 * step.workers * self.point.batch_size / step.step_ms

    def efficiency(self, step: StepTime) -> float:
        """Pictures a second and worker, relative to one worker alone."""
        return self.steps[0].step_ms / step.step_ms


ASSUMPTION = (
    "extrapolated: each further worker computes as fast as those measured, on a core or GPU of its "
    "own, is reached at the bandwidth and latency measured within this machine, and communicates "
    "after computing, not meanwhile"
)


def measure_scaling(
    point: Point,
    device: torch.device,
    *,
    num_workers: Sequence[int],
    time_budget_s: float,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Scaling:
    """Times the point's training step, and all-reduces alone, with each number of workers.

    Args:
        point: the detector, and the batch of each worker.
        device: `cpu`: processes of one thread each, over gloo; `cuda`: a GPU each, over NCCL.
        num_workers: increasing, from 1 on.
        time_budget_s: seconds for all measurements, the start of the processes not counted.
        on_progress: takes a line now and then.
    """
    on_progress(f"scaling: starting {max(num_workers)} workers")
    measured = measure_workers(point, device, num_workers=num_workers, time_budget_s=time_budget_s)
    gradient_bytes = measured[0].gradient_bytes
    steps, all_reduces = [], []
    for times in measured:
        # One worker alone communicates with nobody, and communication makes no step faster: what
        # looks so is noise.
        compute_s = min(times.compute_s, times.step_s) if times.workers > 1 else times.step_s
        steps.append(
            StepTime(
                times.workers,
                compute_ms=1000 * compute_s,
                communication_ms=1000 * (times.step_s - compute_s),
                communication_per_hop_ms=None,
                extrapolated=False,
            )
        )
        all_reduces += [
            AllReduceTime(times.workers, num_bytes, 1000 * seconds)
            for num_bytes, seconds in times.all_reduce_s.items()
        ]
    ring = fit_ring(all_reduces) if all_reduces else None
    further = [] if ring is None else extrapolate(steps[-1], gradient_bytes, ring)
    return Scaling(point, gradient_bytes, (*steps, *further), tuple(all_reduces), ring)


def workers_to_measure(device: torch.device, num_cores: int) -> tuple[int, ...]:
    """1, 2, 4, … and as many as there are cores (or GPUs), 16 at most."""
    most = num_cores if device.type == "cpu" else torch.cuda.device_count()
    most = max(1, min(most, MAX_MEASURED))
    powers = [1 << i for i in range(most.bit_length())]
    return tuple(sorted({*powers, most}))


def bytes_sent(num_bytes: float, workers: int) -> float:
    """Bytes that each worker of a ring sends to sum `num_bytes` over all: 2(k - 1)/k times as
    many."""
    return 2 * (workers - 1) / workers * num_bytes


def fit_ring(measured: Sequence[AllReduceTime]) -> Ring:
    """Bandwidth and latency by least squares on the logarithms of time: every size counts alike,
    where with absolute errors the largest messages would decide over the latency.

    Raises ValueError for fewer than two sizes.
    """
    sent = np.array([bytes_sent(time.bytes, time.workers) for time in measured])
    seconds = np.array([time.ms / 1000 for time in measured])
    if len(set(sent.tolist())) < 2:
        raise ValueError("bandwidth and latency need all-reduces of at least two sizes")

    def errors(parameters: np.ndarray) -> np.ndarray:
        seconds_per_byte, latency_s = np.exp(parameters)
        return np.log(sent * seconds_per_byte + latency_s) - np.log(seconds)

    # In logarithms neither can become negative. The start takes the largest message for bandwidth
    # alone, and the smallest for latency alone.
    largest, smallest = int(sent.argmax()), int(sent.argmin())
    start = np.log([seconds[largest] / sent[largest], seconds[smallest]])
    seconds_per_byte, latency_s = np.exp(least_squares(errors, start).x).tolist()
    return Ring(bandwidth=1 / seconds_per_byte, latency_s=latency_s)


def extrapolate(
    last: StepTime, gradient_bytes: int, ring: Ring, to: Sequence[int] = EXTRAPOLATED_TO
) -> list[StepTime]:
    """Steps of more workers than were measured: computing as in `last`, the step of most workers
    measured, and communication by the model."""
    return [
        StepTime(
            workers,
            compute_ms=last.compute_ms,
            communication_ms=1000 * ring.seconds(gradient_bytes, workers),
            communication_per_hop_ms=1000 * ring.seconds_per_hop(gradient_bytes, workers),
            extrapolated=True,
        )
        for workers in to
        if workers > last.workers
    ]


def table(scaling: Scaling) -> Table:
    """The steps for a terminal, extrapolated ones marked as such."""
    ring = scaling.ring
    notes = [
        f"{scaling.point.name} for each worker, {scaling.gradient_bytes / 1e6:.1f} MB of gradients."
    ]
    if ring is None:
        notes.append("One worker alone communicates with nobody: nothing to extrapolate from.")
    else:
        notes += [
            f"All-reduce: {FORMULA}, with {ring.bandwidth / 1e9:.2f} GB/s and "
            f"{1000 * ring.latency_s:.2f} ms.",
            f"{ASSUMPTION[0].upper()}{ASSUMPTION[1:]}; in brackets with latency on each of the "
            "ring's messages.",
        ]
    grid = Table(
        title="Data-parallel scaling: milliseconds of a training step",
        title_justify="left",
        caption="\n".join(notes),
        caption_justify="left",
    )
    grid.add_column("workers", justify="right")
    grid.add_column("")
    for column in ("compute", "communication", "step", "pictures/s", "efficiency"):
        grid.add_column(column, justify="right")
    for step in scaling.steps:
        per_hop = step.communication_per_hop_ms
        grid.add_row(
            str(step.workers),
            "extrapolated" if step.extrapolated else "measured",
            f"{step.compute_ms:.1f}",
            f"{step.communication_ms:.1f}" + ("" if per_hop is None else f" ({per_hop:.1f})"),
            f"{step.step_ms:.1f}",
            f"{scaling.images_per_second(step):.1f}",
            f"{100 * scaling.efficiency(step):.0f} %",
            style="italic" if step.extrapolated else None,
        )
    return grid
