"""What only processes of their own can tell: data-parallel steps, and the memory of a training."""

from __future__ import annotations

import dataclasses
import resource
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.analysis.step_timing import StepBudget, set_up_training, time_steps
from ssd_dist.config import Config, replace_at
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.engine import Worker
from ssd_dist.exchange import DataParallel
from ssd_dist.loopback import keep_on_loopback
from ssd_dist.model.ssd import SSD, build_model

_CPU = torch.device("cpu")
_TIMEOUT = timedelta(minutes=3)
_MEMORY_STEPS = 2
"""The second one has the optimizer's state from its beginning."""


@dataclass(frozen=True, slots=True)
class ParallelSteps:
    """Training steps of processes side by side, milliseconds; of each step the slowest process."""

    together: tuple[float, ...]
    """With the gradients exchanged: data-parallel training."""
    apart: tuple[float, ...]
    """The same shares of the batch at the same time, with nothing exchanged."""


def time_processes(
    config: Config,
    num_classes: int,
    dataset: DetectionDataset,
    *,
    batch_size: int,
    num_processes: int,
    precisions: Sequence[str],
    num_steps: int,
) -> dict[str, ParallelSteps]:
    """Times data-parallel training on the CPU: precision → its steps.

    Args:
        config: of the training; its precision is replaced. The model starts from random weights.
        num_classes: C.
        dataset: of training pictures.
        batch_size: pictures of a step over all processes, at least one a process.
        num_processes: of one thread each, over gloo.
        precisions: `fp32`, `bf16`.
        num_steps: timed steps of each kind, after one to warm up.

    Raises torch.multiprocessing.ProcessException where a process fails.
    """
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _time_in_process,
            args=(
                num_processes,
                (Path(folder) / "rendezvous").as_uri(),
                config,
                num_classes,
                dataset,
                batch_size,
                tuple(precisions),
                num_steps,
                results,
            ),
            nprocs=num_processes,
        )
    of_each: list[dict[str, ParallelSteps]] = [results.get() for _ in range(num_processes)]
    return {
        precision: ParallelSteps(
            together=_slowest([times[precision].together for times in of_each]),
            apart=_slowest([times[precision].apart for times in of_each]),
        )
        for precision in precisions
    }


def peak_training_memory(
    config: Config,
    num_classes: int,
    dataset: DetectionDataset,
    *,
    batch_size: int,
    num_threads: int,
) -> int:
    """Bytes that a training on the CPU takes at its peak, measured on a fresh process: its largest
    resident memory over a few steps, less what the interpreter, its libraries and the data had
    before the model was built.

    Raises torch.multiprocessing.ProcessException where the process fails.
    """
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    # Where layers are compiled, the first process of all takes the compiler's memory too; it leaves
    # what it compiled to the second.
    for _ in range(2 if num_threads == 1 else 1):
        torch.multiprocessing.spawn(
            _measure_memory,
            args=(config, num_classes, dataset, batch_size, num_threads, results),
            nprocs=1,
        )
        measured: int = results.get()
    return measured


def _time_in_process(
    rank: int,
    num_processes: int,
    rendezvous: str,
    config: Config,
    num_classes: int,
    dataset: DetectionDataset,
    batch_size: int,
    precisions: Sequence[str],
    num_steps: int,
    results: Any,
) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    # Gradients of 1x1 and depthwise weights differ in the strides of their sides of length 1 only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    keep_on_loopback()
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=num_processes, timeout=_TIMEOUT
    )
    one = StepBudget(num_warmup=0, least=1, most=1)
    times = {}
    try:
        for precision in precisions:
            # One worker by its own account, that draws this process's share.
            apart = set_up_training(
                _build(config, num_classes),
                replace_at(config, {"precision": precision}),
                Worker(_CPU, rank),
                dataset,
                batch_size,
                num_shares=num_processes,
            )
            together = dataclasses.replace(
                apart,
                network=DataParallel(apart.model),
                worker=Worker(_CPU, rank, num_processes),
            )
            # By turns, as the first steps of a process are slower than the later ones.
            steps: dict[str, list[float]] = {"together": [], "apart": []}
            for _ in range(1 + num_steps):
                dist.barrier()
                steps["apart"] += time_steps(apart, one)
                dist.barrier()
                steps["together"] += time_steps(together, one)
            times[precision] = ParallelSteps(
                tuple(steps["together"][1:]), tuple(steps["apart"][1:])
            )
    finally:
        dist.destroy_process_group()
    results.put(times)


def _measure_memory(
    _rank: int,
    config: Config,
    num_classes: int,
    dataset: DetectionDataset,
    batch_size: int,
    num_threads: int,
    results: Any,
) -> None:
    keep_freed_memory()
    torch.set_num_threads(num_threads)
    base = _forget_peak()
    training = set_up_training(
        _build(config, num_classes), config, Worker(_CPU), dataset, batch_size
    )
    time_steps(training, StepBudget(num_warmup=0, least=_MEMORY_STEPS, most=_MEMORY_STEPS))
    results.put(_peak_resident_bytes() - base)


def _build(config: Config, num_classes: int) -> SSD:
    """With random weights, as the time does not depend on them; without the exchange of batch
    norm's statistics, which GPUs alone can do."""
    model = config.model
    norm = "batch" if model.norm == "sync" else model.norm
    return build_model(dataclasses.replace(model, norm=norm), num_classes, load_weights=False)


def _forget_peak() -> int:
    """Makes the present resident memory the largest yet, where the system lets us; returns the
    largest yet in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _slowest(times: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each step the longest time that a process took."""
    return tuple(max(of_step) for of_step in zip(*times, strict=True))
