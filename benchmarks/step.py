"""What the training step adds to the network's own forward and backward pass.

python benchmarks/step.py [--model ssdlite320_mobilenet_v3_large] [--batch 8] [--threads 1]
python benchmarks/step.py --device cuda --precision bf16 --batch 64

One worker with its data in memory runs the project's own epoch, step by step: matching, forward,
loss, backward, clipping, optimizer. The limit is the same network's forward and backward alone, on
random pictures with random gradients of its outputs. Both take turns; median of the steps' ratios.
Ends with status 1 below 0.93 of the limit.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import Architecture, Config, ModelConfig
from ssd_dist.engine import Worker, autocast, laid_out, place, train_epoch
from ssd_dist.model.ssd import build_model
from ssd_dist.optimizer import build_optimizer
from ssd_dist.structures import Batch

NEEDED = 0.93
_OBJECTS = 8
_STEPS_A_TURN = 3


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the training step beside the bare network."""

    model: Architecture = "ssdlite320_mobilenet_v3_large"
    """A configuration's `model.architecture`."""
    size: int = 0
    """Side of the input, in pixels; 0: the model's own, or the configuration's default."""
    classes: int = 20
    """Without the background."""
    batch: int = 8
    """Pictures a step."""
    threads: int = 1
    """Of torch."""
    turns: int = 10
    """Of three steps each."""
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


def random_batch(batch: int, size: int, classes: int) -> Batch:
    """Pictures of noise with eight boxes each."""
    corners = torch.rand(batch, _OBJECTS, 2, 2).sort(2).values
    return Batch(
        images=torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8),
        boxes_xyxy=corners.flatten(2),
        labels=torch.randint(1, classes + 1, (batch, _OBJECTS)),
        difficult=torch.zeros(batch, _OBJECTS, dtype=torch.bool),
        indices=torch.arange(batch),
    )


def _where(arguments: Arguments) -> str:
    if arguments.device == "cpu":
        return f"{arguments.threads} thread(s)"
    return f"{torch.cuda.get_device_name(arguments.device)}, {arguments.precision}"


def main(arguments: Arguments) -> None:
    """Times both, and prints the ratio."""
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    size: dict[str, Any] = {"image_size": arguments.size} if arguments.size else {}
    config = Config(
        lr=1e-4,
        precision=arguments.precision,
        model=ModelConfig(architecture=arguments.model, weights="none", **size),
    )
    device = torch.device(arguments.device)
    model = place(build_model(config.model, arguments.classes), config, device).train()
    optimizer = build_optimizer(model, config)
    batch = random_batch(arguments.batch, config.model.image_size, arguments.classes)
    if device.type == "cuda":
        batch = batch.pin_memory()  # as the loader does: the whole steps wait for no copy
    images = batch.images.to(device)
    with torch.no_grad(), autocast(config, device):
        gradients = [torch.randn_like(output) * 1e-3 for output in model(images)]

    def whole_steps(count: int) -> None:
        train_epoch(
            model,
            model,
            optimizer,
            itertools.repeat(batch, count),
            config=config,
            rate_at=lambda step: config.lr,
            worker=Worker(device),
        )

    def bare_steps(count: int) -> None:
        for _ in range(count):
            with autocast(config, device):
                outputs = model(laid_out(images, config))
            torch.autograd.backward(outputs, gradients)
            model.zero_grad(set_to_none=True)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def clocked() -> Iterator[tuple[float, float]]:
        for run in (whole_steps, bare_steps):
            run(2)
        for turn in range(arguments.turns):
            seconds = {}
            # Whichever comes first has the colder caches: they change places.
            for run in (whole_steps, bare_steps)[:: 1 if turn % 2 else -1]:
                started = clock()
                run(_STEPS_A_TURN)
                seconds[run] = (clock() - started) / _STEPS_A_TURN
            yield seconds[whole_steps], seconds[bare_steps]

    times = list(clocked())
    whole, bare = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(bare / whole for whole, bare in times)
    Console().print(
        f"{arguments.model}, batch {arguments.batch}, {_where(arguments)}: a step "
        f"{1e3 * whole:.0f} ms, the network's forward and backward alone {1e3 * bare:.0f} ms: "
        f"{ratio:.3f} of the limit, {NEEDED} needed"
    )
    sys.exit(ratio < NEEDED)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
