"""The processes that measure data-parallel scaling: k of them train together, for each k asked."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.analysis.clock import synchronise
from ssd_dist.analysis.sweep import NUM_CLASSES, Point, random_batch
from ssd_dist.config import Config
from ssd_dist.engine import Worker, place, train_epoch
from ssd_dist.exchange import DataParallel
from ssd_dist.loopback import keep_on_loopback
from ssd_dist.model.ssd import build_model
from ssd_dist.optimizer import build_optimizer

MESSAGE_BYTES = tuple(1 << exponent for exponent in (16, 18, 20, 22, 24, 25))
"""64 KiB to 32 MiB; besides these, as many bytes as there are gradients."""
_TIMED_STEPS_PER_BLOCK = 2
_BLOCKS = (1, 20)
"""Fewest and most, after a warm-up; likewise:"""
_ALL_REDUCES = (5, 50)


@dataclass(frozen=True, slots=True)
class WorkerTimes:
    """Medians over repetitions, each that of the slowest worker."""

    workers: int
    gradient_bytes: int
    compute_s: float
    """A step without averaging the gradients."""
    step_s: float
    all_reduce_s: dict[int, float]
    """Bytes → seconds; empty for one worker."""


def measure_workers(
    point: Point, device: torch.device, *, num_workers: Sequence[int], time_budget_s: float
) -> list[WorkerTimes]:
    """Times the point's step, the batch being each worker's own, with each number of workers.

    Starts as many processes as the largest number; of these the first k train together while the
    others wait. `time_budget_s` is for all numbers, the processes' start not counted; a few steps
    are taken whatever it says. A process that fails raises `ProcessRaisedException`.
    """
    context = torch.multiprocessing.get_context("spawn")
    most = max(num_workers)
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _run,
            args=(
                point,
                device.type,
                tuple(num_workers),
                time_budget_s / len(num_workers),
                context.Barrier(most),
                Path(folder),
                results,
            ),
            nprocs=most,
        )
    return [results.get() for _ in num_workers]


def _run(
    rank: int,
    point: Point,
    device_type: str,
    num_workers: Sequence[int],
    time_budget_s: float,
    barrier: Any,
    folder: Path,
    results: Any,
) -> None:
    keep_freed_memory()
    keep_on_loopback()
    torch.set_num_threads(1)
    # Gradients of 1x1 and depthwise weights differ in the strides of their sides of length 1 only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    device = torch.device(device_type)
    if device_type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    for workers in num_workers:
        barrier.wait()  # the others do not take the cores from those that measure
        if rank >= workers:
            continue
        # The loss sums over the default group, so each number of workers gets it anew.
        dist.init_process_group(
            "nccl" if device_type == "cuda" else "gloo",
            init_method=(folder / f"{workers}_workers").as_uri(),
            rank=rank,
            world_size=workers,
        )
        try:
            times = _measure(point, Worker(device, rank, workers), time_budget_s)
        finally:
            dist.destroy_process_group()
        if rank == 0:
            results.put(times)


def _measure(point: Point, worker: Worker, time_budget_s: float) -> WorkerTimes:
    """This worker's part in all that is measured with so many workers."""
    config = Config(model=point.model)
    model = place(build_model(point.model, NUM_CLASSES), config, worker.device)
    network = DataParallel(model)
    optimizer = build_optimizer(model, config)
    batch = random_batch(point.batch_size, point.model.image_size)

    def block(num_timed: int, *, synchronised: bool) -> list[float]:
        """Seconds of steps in a row. One before them is not timed: it still exchanges batch norm's
        buffers, or not, as the step before it did."""
        finished: list[float] = []

        def on_step(_: int) -> None:
            synchronise(worker.device)
            finished.append(time.perf_counter())

        with contextlib.nullcontext() if synchronised else network.no_sync():
            train_epoch(
                model,
                network,
                optimizer,
                [batch] * (1 + num_timed),
                config=config,
                rate_at=lambda _: 0.0,
                worker=worker if synchronised else Worker(worker.device),
                on_step=on_step,
            )
        return [_of_slowest(end - begin, worker) for begin, end in itertools.pairwise(finished)]

    def both(num_timed: int) -> float:
        started = time.perf_counter()
        compute_s.extend(block(num_timed, synchronised=False))
        step_s.extend(block(num_timed, synchronised=True))
        return time.perf_counter() - started

    compute_s: list[float] = []
    step_s: list[float] = []
    both(1)  # a warm-up
    compute_s.clear()
    step_s.clear()
    share = 0.75 if worker.world_size > 1 else 1.0
    first_s = both(_TIMED_STEPS_PER_BLOCK)
    for _ in range(_repetitions(first_s, share * time_budget_s, _BLOCKS, worker) - 1):
        both(_TIMED_STEPS_PER_BLOCK)
    gradient_bytes = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    messages = (*MESSAGE_BYTES, gradient_bytes) if worker.world_size > 1 else ()
    budget_s = (1 - share) * time_budget_s / max(1, len(messages))
    return WorkerTimes(
        worker.world_size,
        gradient_bytes,
        compute_s=statistics.median(compute_s),
        step_s=statistics.median(step_s),
        all_reduce_s={size: _all_reduce_s(size, worker, budget_s) for size in messages},
    )


def _all_reduce_s(num_bytes: int, worker: Worker, time_budget_s: float) -> float:
    message = torch.zeros(num_bytes // 4, device=worker.device)

    def once() -> float:
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(message)
        synchronise(worker.device)
        return _of_slowest(time.perf_counter() - started, worker)

    once()  # a warm-up
    count = _repetitions(once(), time_budget_s, _ALL_REDUCES, worker)
    return statistics.median(once() for _ in range(count))


def _repetitions(
    seconds: float, time_budget_s: float, bounds: tuple[int, int], worker: Worker
) -> int:
    """How often something of so many seconds fits the budget: the same number on all workers."""
    low, high = bounds
    return max(low, min(high, int(time_budget_s / _of_slowest(seconds, worker))))


def _of_slowest(seconds: float, worker: Worker) -> float:
    slowest = torch.tensor(seconds, dtype=torch.float64, device=worker.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return float(slowest)
