"""Times the training step: engine.train_epoch itself, on batches as training draws them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.profiler import record_function

from ssd_dist.analysis.clock import REST, TOTAL, StepClock, forward_sections
from ssd_dist.analysis.timing import Percentiles, percentiles
from ssd_dist.config import Config
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset, training_batches
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.engine import (
    OpenSection,
    Worker,
    place,
    train_epoch,
)
from ssd_dist.model.ssd import SSD
from ssd_dist.optimizer import build_average, build_optimizer
from ssd_dist.structures import Batch
from ssd_dist.training import loader_processes

TRAINING_SEGMENTS = (
    "data",
    "matching",
    "preprocessing",
    "backbone",
    "extras",
    "heads",
    "loss",
    "communication",
    "backward",
    "optimizer",
    REST,
    TOTAL,
)
"""The segments of a training step in their order. `preprocessing`, `backbone`, `extras` and `heads`
are the forward pass; the first lays out and normalises the pixels. `communication` is 0 in a
training of one process. `total` is the step, which the others add up to."""

_NUM_PICTURES = 64


@dataclass(frozen=True, slots=True)
class StepBudget:
    """How many steps are timed: as many as fit into `seconds`, but `least` to `most`."""

    num_warmup: int = 1
    """Steps before the first that counts."""
    least: int = 3
    most: int = 50
    seconds: float = 20.0
    longest_warmup: float = float("inf")
    """No step is timed where the warm-up took more seconds than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What training steps work on; see :func:`ssd_dist.engine.train_epoch`."""

    model: SSD
    network: nn.Module
    optimizer: Optimizer
    average: AveragedModel | None
    batches: Iterator[Batch]
    """Without end."""
    config: Config
    worker: Worker


def set_up_training(
    model: SSD,
    config: Config,
    worker: Worker,
    dataset: DetectionDataset,
    batch_size: int,
    *,
    num_shares: int = 1,
) -> Training:
    """A training of a copy of `model` on the worker's device, with fresh optimizer state.

    Args:
        model: on any device; left as it is.
        config: loss, optimizer, precision, layout.
        worker: where to train. `worker.rank` also says which share of each batch is drawn.
        dataset: of training pictures, at least one.
        batch_size: pictures of a step over all shares; at most as many as `dataset` has are taken.
        num_shares: into how many parts each batch is cut; 1: this worker takes it whole.
    """
    copied = place(copy.deepcopy(model), config, worker.device)
    batches = (
        training_batches(
            dataset,
            epoch=epoch,
            global_batch_size=min(batch_size, len(dataset)),
            rank=worker.rank,
            world_size=num_shares,
            num_processes=loader_processes(config, worker),
            pin_memory=worker.device.type == "cuda",
        )
        for epoch in itertools.count()
    )
    return Training(
        model=copied,
        network=copied,
        optimizer=build_optimizer(copied, config),
        average=build_average(copied, config.optimizer),
        batches=itertools.chain.from_iterable(batches),
        config=config,
        worker=worker,
    )


def drawn_dataset(config: Config, num_classes: int, batch_size: int) -> DetectionDataset:
    """Synthetic pictures to time a training on, varied as `config` says, their classes folded into
    the 1…`num_classes` that the model knows."""
    split = synthetic_split("train", num_images=max(_NUM_PICTURES, batch_size))
    annotations = tuple(
        dataclasses.replace(a, labels=(a.labels - 1) % num_classes + 1) for a in split.annotations
    )
    size = config.model.image_size
    cache = open_cache(split, max_side=size * 3 // 2)
    folded = dataclasses.replace(split, annotations=annotations)
    return DetectionDataset(folded, cache, size, config.data.augmentation, config.seed)


def time_segments(training: Training, budget: StepBudget) -> list[dict[str, float]]:
    """Milliseconds of every timed step by segment (keys of `TRAINING_SEGMENTS`); none where the
    warm-up took too long."""
    clock = StepClock(training.worker.device)
    with forward_sections(training.model, clock):
        steps = _run(training, budget, clock, clock.section)
    for step in steps:
        step["preprocessing"] = step.pop("forward")  # what the network's parts left of it
    return [{name: step.get(name, 0.0) for name in TRAINING_SEGMENTS} for step in steps]


def time_steps(training: Training, budget: StepBudget) -> list[float]:
    """Milliseconds of every timed step, which nothing interrupts: a GPU is waited for at its end
    alone."""
    clock = StepClock(training.worker.device)
    return [step[TOTAL] for step in _run(training, budget, clock, record_function)]


def by_segment(steps: Sequence[dict[str, float]]) -> dict[str, Percentiles]:
    """Median, 10th and 90th percentile of each segment over at least one step."""
    return {name: percentiles([step[name] for step in steps]) for name in steps[0]}


def _run(
    training: Training, budget: StepBudget, clock: StepClock, section: OpenSection
) -> list[dict[str, float]]:
    """The clock's steps after the warm-up."""

    def enough() -> bool:
        if len(clock.steps) < budget.num_warmup:
            return False
        totals = [step[TOTAL] / 1000 for step in clock.steps]
        warmup, timed = totals[: budget.num_warmup], totals[budget.num_warmup :]
        if len(timed) < budget.least:
            return sum(warmup) > budget.longest_warmup
        one_more = sum(timed) * (len(timed) + 1) / len(timed)
        return len(timed) >= budget.most or one_more > budget.seconds

    train_epoch(
        training.model,
        training.network,
        training.optimizer,
        _until(enough, training.batches),
        config=training.config,
        # The weights stay as they are, and no choice of them can make the loss diverge; the
        # optimizer's arithmetic is the same with any rate.
        rate_at=lambda step: 0.0,
        worker=training.worker,
        average=training.average,
        on_step=clock.finish_step,
        section=section,
    )
    return clock.steps[budget.num_warmup :]


def _until(enough: Callable[[], bool], batches: Iterator[Batch]) -> Iterator[Batch]:
    while not enough():
        yield next(batches)
