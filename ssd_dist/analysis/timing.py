"""What a model costs by the clock: inference, and the percentiles that all timings are told in."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssd_dist.analysis.clock import TOTAL, StepClock, forward_sections, synchronise
from ssd_dist.config import Config
from ssd_dist.engine import detect_in
from ssd_dist.model.ssd import SSD

INFERENCE_SEGMENTS = ("preprocessing", "backbone", "extras", "heads", "postprocessing", TOTAL)
"""The segments of an inference in their order: the picture's way to the device, its layout and
normalisation; the network's parts; decoding and NMS. `total` is what the others add up to."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A median with the spread around it."""

    median: float
    p10: float
    p90: float


def time_inference(
    model: SSD,
    images: Sequence[Tensor],
    config: Config,
    device: torch.device,
    *,
    num_warmup: int = 5,
) -> Percentiles:
    """Milliseconds from a picture of the input's size to its detections, one picture at a time.

    Network, decoding and NMS, after a warm-up; synchronised on a GPU. Reading and shrinking the
    picture file are not in it.

    Args:
        model: on `device`; put in eval mode.
        images: (3, S, S) uint8 tensors, on the CPU; at least one.
        config: of the model, for post-processing, precision and memory layout.
        device: where the model runs.
        num_warmup: pictures that are run before the clock starts.
    """
    if not images:
        raise ValueError("timing needs at least one picture")
    model.eval()

    def run(image: Tensor) -> float:
        started = time.perf_counter()
        detect_in(model, image.unsqueeze(0).to(device), config)
        synchronise(device)
        return (time.perf_counter() - started) * 1000

    for step in range(num_warmup):
        run(images[step % len(images)])
    return percentiles([run(image) for image in images])


def time_inference_segments(
    model: SSD,
    images: Sequence[Tensor],
    config: Config,
    device: torch.device,
    *,
    num_warmup: int = 2,
    least: int = 5,
    most: int = 50,
    seconds: float = 8.0,
) -> list[dict[str, float]]:
    """Milliseconds of every timed inference of one picture by segment (`INFERENCE_SEGMENTS`).

    As `time_inference`, with the device waited for between the segments; the pictures come round
    again until `seconds` are spent, `least` to `most` times. The averaging of mirror images counts
    as post-processing.
    """
    if not images:
        raise ValueError("timing needs at least one picture")
    model.eval()
    clock = StepClock(device)
    stop = float("inf")
    with forward_sections(model, clock, behind="postprocessing"):
        for count, image in enumerate(itertools.cycle(images)):
            if count == num_warmup:
                stop = time.perf_counter() + seconds
            num_timed = count - num_warmup
            if num_timed >= most or (num_timed >= least and time.perf_counter() >= stop):
                break
            clock.enter("preprocessing")
            detect_in(model, image.unsqueeze(0).to(device), config)
            clock.finish_step()
    timed = clock.steps[num_warmup:]
    return [{name: step.get(name, 0.0) for name in INFERENCE_SEGMENTS} for step in timed]


def percentiles(values: Sequence[float]) -> Percentiles:
    """Median, 10th and 90th percentile of at least one value."""
    p10, median, p90 = np.percentile(np.asarray(values), [10, 50, 90]).tolist()
    return Percentiles(median=median, p10=p10, p90=p90)
