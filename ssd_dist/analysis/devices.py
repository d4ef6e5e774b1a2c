"""The same training step on every device that there is: CPU threads, processes, GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.multiprocessing.spawn import ProcessException

from ssd_dist.analysis.device_table import (
    NOT_HERE,
    PRECISIONS,
    DeviceRow,
    DeviceTable,
    Precision,
    with_speed_ups,
)
from ssd_dist.analysis.processes import ParallelSteps, time_processes
from ssd_dist.analysis.step_timing import StepBudget, set_up_training, time_steps
from ssd_dist.analysis.timing import percentiles
from ssd_dist.config import Config, replace_at
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.engine import Worker
from ssd_dist.model.norm import has_batch_norm
from ssd_dist.model.ssd import SSD

_NO_TIME = "left out: no time for it"
_TOO_SLOW = "left out: too slow here"
_LEAST_STEPS = 2
_MOST_STEPS = 10
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What all rows have in common."""

    model: SSD
    config: Config
    dataset: DetectionDataset
    batch_size: int
    row_s: float
    """A row's share of the seconds."""
    deadline: float
    """Of time.monotonic(): no row on the CPU begins later."""

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def in_precision(self, precision: Precision) -> Config:
        return replace_at(self.config, {"precision": precision})


def compare_devices(
    model: SSD,
    config: Config,
    dataset: DetectionDataset,
    *,
    batch_size: int,
    seconds: float,
) -> DeviceTable:
    """Times the training step with 1, 2, 4, … threads up to the processors that there are, with as
    many processes, and on each GPU, in fp32 and in bf16.

    Args:
        model: on any device; left as it is. Processes train one like it with random weights.
        config: of the training; its precision is replaced.
        dataset: of training pictures.
        batch_size: pictures a step; a smaller power of two, 2 at least, is taken where so many
            would not fit `seconds`. With batch normalisation each part of the batch (see
            `accumulation`) has 2 at least.
        seconds: what all rows together are meant to take. Rows whose turn comes after twice that
            are left out, and say so.
    """
    deadline = time.monotonic() + 2 * seconds
    counts = thread_counts(num_processors())
    most = min(batch_size, len(dataset))
    with _threads(1):
        few = min(_least_pictures(model, config), most)
        probe = set_up_training(model, config, Worker(_CPU), dataset, few)
        picture_s = time_steps(probe, StepBudget(least=1, most=1))[0] / 1000 / few
    num_rows = len(PRECISIONS) * (2 * len(counts) - 1 + torch.cuda.device_count())
    plan = _Plan(
        model,
        config,
        dataset,
        affordable_batch_size(most, picture_s, counts, seconds, least=few),
        seconds / num_rows,
        deadline,
    )
    rows = [_threads_row(plan, count, precision) for precision in PRECISIONS for count in counts]
    too_slow = {row.precision for row in rows if row.count == counts[-1] and row.step_ms is None}
    for count in counts[1:]:
        share_s = picture_s * plan.batch_size / count
        num_steps = max(_LEAST_STEPS, min(_MOST_STEPS, int(plan.row_s / (2 * share_s)) - 1))
        precisions = [p for p in PRECISIONS if p not in too_slow]
        rows += _process_rows(plan, count, precisions, num_steps)
    for precision in PRECISIONS:
        rows += _gpu_rows(plan, precision)
    return DeviceTable(plan.batch_size, with_speed_ups(rows))


def num_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_counts(num_processors: int) -> list[int]:
    """1, 2, 4, … and `num_processors` itself."""
    powers = [1 << k for k in range(num_processors.bit_length())]
    return sorted({*powers, num_processors})


def _least_pictures(model: SSD, config: Config) -> int:
    """Pictures of the smallest step that is timed."""
    # Batch norm has no variance of a single picture's last map, which is one cell.
    return 2 * config.accumulation if _normalises(model, config) else 2


def _normalises(model: SSD, config: Config) -> bool:
    return config.model.norm in ("batch", "sync") and has_batch_norm(model)


def affordable_batch_size(
    most: int, picture_s: float, counts: Sequence[int], seconds: float, *, least: int = 2
) -> int:
    """The largest power of two from `least` to `most` (or `most` itself) whose rows on the CPU take
    at most `seconds` if threads and processes share the work evenly; `least` where none does.

    `picture_s`: seconds of a training step on one thread, by picture.
    """
    threads = sum(1 / count for count in counts)
    processes = sum(1 / count for count in counts[1:])
    # Processes run every step twice, with and without the exchange.
    steps = len(PRECISIONS) * (1 + _LEAST_STEPS) * (threads + 2 * processes)
    sizes = [most, *(1 << k for k in range(most.bit_length() - 1, 0, -1))]
    affordable = [size for size in sizes if size >= least and size * picture_s * steps <= seconds]
    return affordable[0] if affordable else min(least, most)


def _threads_row(plan: _Plan, count: int, precision: Precision) -> DeviceRow:
    name = f"{count} CPU thread{'s' if count > 1 else ''}"
    row = DeviceRow(device=name, kind="threads", count=count, precision=precision)
    if plan.late():
        return replace(row, note=_NO_TIME)
    # Of a step that takes so much longer than its share of time, one is enough.
    budget = StepBudget(
        least=_LEAST_STEPS, most=_MOST_STEPS, seconds=plan.row_s, longest_warmup=3 * plan.row_s
    )
    with _threads(count):
        times = _times_on(plan, precision, Worker(_CPU), budget)
    return _filled(row, times, plan) if times else replace(row, note=_TOO_SLOW)


def _process_rows(
    plan: _Plan, count: int, precisions: Sequence[Precision], num_steps: int
) -> list[DeviceRow]:
    """The rows of `count` processes: measured in `precisions`, the others being too slow."""
    normalises = _normalises(plan.model, plan.config)
    least = _least_pictures(plan.model, plan.config) if normalises else 1
    parallel: dict[str, ParallelSteps] = {}
    note = _TOO_SLOW
    if plan.late():
        note = _NO_TIME
    elif plan.batch_size < least * count:
        note = f"left out: {plan.batch_size} pictures are too few for {count} processes"
    elif precisions:
        try:
            parallel = time_processes(
                plan.config,
                plan.model.num_classes,
                plan.dataset,
                batch_size=plan.batch_size,
                num_processes=count,
                precisions=precisions,
                num_steps=num_steps,
            )
        except ProcessException as error:
            note = f"failed: {str(error).strip().splitlines()[-1]}"
    rows = []
    for precision in PRECISIONS:
        name = f"{count} CPU processes"
        row = DeviceRow(device=name, kind="processes", count=count, precision=precision)
        if precision in parallel:
            steps = parallel[precision]
            row = _filled(row, steps.together, plan)
            exchange = percentiles(steps.together).median - percentiles(steps.apart).median
            rows.append(replace(row, communication_ms=max(0.0, exchange)))
        else:
            rows.append(replace(row, note=note))
    return rows


def _gpu_rows(plan: _Plan, precision: Precision) -> list[DeviceRow]:
    """A row for each GPU; one that says so where there is none."""
    if not torch.cuda.is_available():
        return [DeviceRow(device="GPU", kind="gpu", count=1, precision=precision, note=NOT_HERE)]
    budget = StepBudget(num_warmup=5, least=_LEAST_STEPS, seconds=plan.row_s)
    rows = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        name = f"GPU {index}: {torch.cuda.get_device_name(device)}"
        row = DeviceRow(device=name, kind="gpu", count=1, precision=precision)
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bf16" and not has_bf16:
            rows.append(replace(row, note="left out: it has no bf16"))
        else:
            rows.append(_filled(row, _times_on(plan, precision, Worker(device), budget), plan))
    return rows


def _times_on(plan: _Plan, precision: Precision, worker: Worker, budget: StepBudget) -> list[float]:
    config = plan.in_precision(precision)
    training = set_up_training(plan.model, config, worker, plan.dataset, plan.batch_size)
    return time_steps(training, budget)


def _filled(row: DeviceRow, times: Sequence[float], plan: _Plan) -> DeviceRow:
    step_ms = percentiles(times)
    return replace(
        row,
        step_ms=step_ms,
        num_steps=len(times),
        images_per_second=1000 * plan.batch_size / step_ms.median,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
