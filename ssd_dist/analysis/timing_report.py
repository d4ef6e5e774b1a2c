"""All that the clock says of a model: training step, inference, kinds of operation, devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.analysis.clock import TOTAL
from ssd_dist.analysis.device_table import DeviceTable
from ssd_dist.analysis.devices import compare_devices
from ssd_dist.analysis.kinds import percent_by_kind, share_beside_convolution
from ssd_dist.analysis.noise import LoadMeter, Noise, judge
from ssd_dist.analysis.processes import peak_training_memory
from ssd_dist.analysis.step_timing import (
    StepBudget,
    Training,
    by_segment,
    drawn_dataset,
    set_up_training,
    time_segments,
    time_steps,
)
from ssd_dist.analysis.timing import Percentiles, percentiles, time_inference_segments
from ssd_dist.analysis.trace import profile_steps, write_trace
from ssd_dist.config import Config
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.engine import Worker, autocast
from ssd_dist.model.ssd import SSD

_MOST_PICTURES = 32
_SMALL_SEGMENT = 0.01
"""A segment below this part of the whole is not asked to be steady."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingBudget:
    """Seconds for each part; each takes a few steps whatever they are, so that a model whose step
    takes seconds takes longer."""

    steps: float = 20.0
    inference: float = 6.0
    profiler: float = 8.0
    devices: float = 40.0


@dataclass(frozen=True, slots=True)
class ProfilerCost:
    """The training step with and without the profiler, medians in milliseconds."""

    without_ms: float
    with_ms: float
    clock_ms: float
    """With this report's own clock, which waits for a GPU between the segments."""
    num_steps: int
    """Under the profiler."""

    @property
    def overhead_percent(self) -> float:
        """What the profiler adds."""
        return 100 * (self.with_ms / self.without_ms - 1)


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Memory of a training at its peak, in bytes; None where it is not known."""

    measured_bytes: int | None
    predicted_bytes: int | None
    how: str
    """How it was measured, or why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingReport:
    """What :func:`measure_timing` found."""

    device: str
    num_threads: int
    precision: str
    """`fp32` or `bf16`: what `auto` came to on this device."""
    data: str
    """Where the training pictures came from."""
    batch_size: int
    num_steps: int
    """Timed, after `num_warmup`."""
    num_warmup: int
    train_step_ms: dict[str, Percentiles]
    """By segment; see step_timing.TRAINING_SEGMENTS."""
    inference_ms: dict[str, Percentiles]
    """Of one picture, by segment; see timing.INFERENCE_SEGMENTS."""
    num_inferences: int
    by_kind_percent: dict[str, float]
    """Of a training step; see kinds.KINDS."""
    profiler: ProfilerCost
    memory: PeakMemory
    devices: DeviceTable | None
    """None where they were not asked for."""
    noise: Noise
    trace: str | None
    """Name of the Chrome trace, if one was written."""

    def to_json(self) -> dict[str, Any]:
        """The report's key `timing`, as plain mappings, lists and numbers."""
        return {
            "device": self.device,
            "num_threads": self.num_threads,
            "precision": self.precision,
            "data": self.data,
            "batch_size": self.batch_size,
            "num_steps": self.num_steps,
            "num_warmup": self.num_warmup,
            "train_step_ms": _mapping(self.train_step_ms),
            "train_step_sum_of_segments_ms": sum_of_segments_ms(self.train_step_ms),
            "train_images_per_second": 1000 * self.batch_size / self.train_step_ms[TOTAL].median,
            "inference_ms_per_image": asdict(self.inference_ms[TOTAL]),
            "inference_segments_ms": _mapping(self.inference_ms),
            "num_inferences": self.num_inferences,
            "by_kind_percent": dict(self.by_kind_percent),
            "share_beside_convolution": share_beside_convolution(self.by_kind_percent),
            "profiler": {
                **asdict(self.profiler),
                "overhead_percent": self.profiler.overhead_percent,
            },
            "peak_memory": asdict(self.memory),
            "devices": None if self.devices is None else self.devices.to_json(),
            "noisy": self.noise.noisy,
            "noise": asdict(self.noise),
            "trace": self.trace,
        }


def sum_of_segments_ms(segments: Mapping[str, Percentiles]) -> float:
    """The sum of the segments' medians, which the median of the whole step should equal."""
    return sum(values.median for name, values in segments.items() if name != TOTAL)


def sum_gap(segments: Mapping[str, Percentiles]) -> float:
    """By which part of the step's median the segments' medians miss it. Those of each step add up
    to it, so that a gap here says how unlike each other the steps were."""
    return abs(sum_of_segments_ms(segments) / segments[TOTAL].median - 1)


def measure_timing(
    model: SSD,
    config: Config,
    device: torch.device,
    *,
    batch_size: int,
    dataset: DetectionDataset | None = None,
    data_name: str = "synthetic",
    trace: Path | None = None,
    predicted_bytes: int | None = None,
    with_devices: bool = True,
    budget: TimingBudget = TimingBudget(),
    on_progress: Callable[[str], None] = lambda _: None,
) -> TimingReport:
    """Times the training step and the inference of a model; its weights are left as they are.

    Args:
        model: on `device`; it is in eval mode afterwards.
        config: of the model: loss, optimizer, augmentation, precision, post-processing.
        device: where to train and to infer.
        batch_size: pictures a training step; fewer where the data has fewer.
        dataset: training pictures, varied as in training; None: drawn ones.
        data_name: what to call that data.
        trace: where to write the Chrome trace of a few training steps.
        predicted_bytes: what the count says of the peak memory, to stand beside what was measured.
        with_devices: whether to time the step on every other device too.
        budget: seconds for each part.
        on_progress: takes a line before each part.

    Raises ValueError where the data has no picture.
    """
    keep_freed_memory()  # as the workers of a training do
    if dataset is None:
        dataset = drawn_dataset(config, model.num_classes, batch_size)
    batch_size = min(batch_size, len(dataset))
    on_gpu = device.type == "cuda"
    load = LoadMeter()

    on_progress(f"timing: training steps of {batch_size} pictures")
    memory_before = _start_gpu_peak(device)
    training = set_up_training(model, config, Worker(device), dataset, batch_size)
    warmup = 5 if on_gpu else 2
    steps = time_segments(training, StepBudget(num_warmup=warmup, seconds=budget.steps))
    gpu_bytes = torch.cuda.max_memory_allocated(device) - memory_before if on_gpu else None
    # Without a GPU the clock waits for nothing and adds some microseconds: no need to do without.
    unwatched = (
        time_steps(training, StepBudget(seconds=budget.steps / 2))
        if on_gpu
        else [step[TOTAL] for step in steps]
    )

    on_progress("timing: training steps under the profiler")
    by_kind, profiled = _profile(training, budget.profiler, trace)
    del training

    on_progress("timing: inference")
    pictures = [dataset[index].image for index in range(min(len(dataset), _MOST_PICTURES))]
    inferences = time_inference_segments(model, pictures, config, device, seconds=budget.inference)
    others_percent = load.others_percent()

    memory = PeakMemory(gpu_bytes, predicted_bytes, "allocated on the GPU, at most")
    if not on_gpu:
        on_progress("timing: peak memory, in a process of its own")
        memory = _process_memory(model, config, dataset, batch_size, predicted_bytes)
    devices = None
    if with_devices:
        on_progress("timing: the step on every device")
        devices = compare_devices(
            model, config, dataset, batch_size=batch_size, seconds=budget.devices
        )

    return TimingReport(
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        num_threads=torch.get_num_threads(),
        precision=_precision(config, device),
        data=data_name,
        batch_size=batch_size,
        num_steps=len(steps),
        num_warmup=warmup,
        train_step_ms=by_segment(steps),
        inference_ms=by_segment(inferences),
        num_inferences=len(inferences),
        by_kind_percent=by_kind,
        profiler=ProfilerCost(
            without_ms=percentiles(unwatched).median,
            with_ms=percentiles(profiled).median,
            clock_ms=percentiles([step[TOTAL] for step in steps]).median,
            num_steps=len(profiled),
        ),
        memory=memory,
        devices=devices,
        noise=judge(
            {**_large_segments("training", steps), **_large_segments("inference", inferences)},
            others_percent,
            sum_gap=sum_gap(by_segment(steps)),
        ),
        trace=None if trace is None else trace.name,
    )


def _profile(
    training: Training, seconds: float, trace: Path | None
) -> tuple[dict[str, float], list[float]]:
    """Percentage by kind, and the milliseconds of each step that was watched."""
    budget = StepBudget(num_warmup=0, least=2, most=3, seconds=seconds)
    profiler, times = profile_steps(training, budget)
    if trace is not None:
        write_trace(profiler, trace)
    on_gpu = training.worker.device.type == "cuda"
    return percent_by_kind(profiler.events() or [], on_gpu=on_gpu), times


def _precision(config: Config, device: torch.device) -> str:
    with autocast(config, device):
        return "bf16" if torch.is_autocast_enabled(device.type) else "fp32"


def _start_gpu_peak(device: torch.device) -> int:
    """Bytes on the GPU now; its peak counts from here on."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _process_memory(
    model: SSD,
    config: Config,
    dataset: DetectionDataset,
    batch_size: int,
    predicted_bytes: int | None,
) -> PeakMemory:
    try:
        measured = peak_training_memory(
            config,
            model.num_classes,
            dataset,
            batch_size=batch_size,
            num_threads=torch.get_num_threads(),
        )
    except ProcessException as error:
        return PeakMemory(None, predicted_bytes, f"failed: {str(error).strip().splitlines()[-1]}")
    return PeakMemory(
        measured,
        predicted_bytes,
        "resident memory of a fresh process, less what it had before the model was built",
    )


def _large_segments(name: str, steps: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """`name: segment` → its values, for the segments that matter."""
    medians = {segment: p.median for segment, p in by_segment(steps).items()}
    return {
        f"{name}: {segment}": [step[segment] for step in steps]
        for segment, median in medians.items()
        if median >= _SMALL_SEGMENT * medians[TOTAL]
    }


def _mapping(segments: dict[str, Percentiles]) -> dict[str, dict[str, float]]:
    return {name: asdict(values) for name, values in segments.items()}
