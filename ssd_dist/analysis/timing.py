"""What a model costs by the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssd_dist.config import Config
from ssd_dist.engine import detect_in
from ssd_dist.model.ssd import SSD


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
        model: on `device`.
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
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) * 1000

    for step in range(num_warmup):
        run(images[step % len(images)])
    return percentiles([run(image) for image in images])


def percentiles(values: Sequence[float]) -> Percentiles:
    """Median, 10th and 90th percentile of at least one value."""
    p10, median, p90 = np.percentile(np.asarray(values), [10, 50, 90]).tolist()
    return Percentiles(median=median, p10=p10, p90=p90)
