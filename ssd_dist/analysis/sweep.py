"""Detectors over width, depth, input size and batch: what each costs by count, and by the clock.

Each is a whole SSD with random weights. What is timed is a training step (matching, forward pass,
loss, backward pass, clipping, optimizer) and an inference (forward pass, decoding, NMS), both by
the project's own functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ssd_dist.analysis.clock import synchronise
from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.layers import Cost
from ssd_dist.analysis.timing import Percentiles, percentiles
from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import Worker, detect_in, place, train_epoch
from ssd_dist.model.ssd import SSD, build_model
from ssd_dist.optimizer import build_optimizer
from ssd_dist.structures import Batch

NUM_CLASSES = 20
"""As many as PASCAL VOC has."""
MIN_ROUNDS = 3
MAX_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Point:
    """A detector and a batch size."""

    varied: str
    """What sets it apart from another point: `width`, `depth`, `input size` or `batch`."""
    model: ModelConfig
    batch_size: int

    @property
    def name(self) -> str:
        """`resnet18, 128 px, batch 4`."""
        neck = self.model.neck_channels
        neck_name = "" if neck == ModelConfig().neck_channels else f" + neck of {neck}"
        return (
            f"{self.model.backbone}{neck_name}, {self.model.image_size} px, batch {self.batch_size}"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a training step, or an inference, does and takes: each for one picture, so divided by
    the batch size."""

    macs: float
    """Multiply-accumulates (Eq. 3), those of the backward pass among them."""
    bytes: float
    """Read and written; weights are read once a batch, and the optimizer's work is among it."""
    ms: Percentiles


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """A point with what it costs, by count and by the clock."""

    point: Point
    weights: int
    """All parameters of the model."""
    training: Measured
    inference: Measured
    """Its counts are of the forward pass alone, without decoding and NMS."""
    num_timed: int
    """Steps, and inferences, that the percentiles are of."""


def _point(
    varied: str, backbone: str, image_size: int, *, batch_size: int = 4, neck_channels: int = 96
) -> Point:
    model = ModelConfig(backbone=backbone, image_size=image_size, neck_channels=neck_channels)
    return Point(varied, model, batch_size)


BASE = _point("input size", "resnet18", 128)

SWEEP = (
    BASE,
    _point("input size", "resnet18", 64),
    _point("input size", "resnet18", 96),
    _point("input size", "resnet18", 192),
    _point("input size", "mobilenetv2_100", 96),
    _point("input size", "mobilenetv2_100", 224),
    _point("batch", "resnet18", 128, batch_size=1),
    _point("batch", "resnet18", 128, batch_size=2),
    _point("batch", "resnet18", 128, batch_size=8),
    _point("depth", "resnet10t", 128),
    _point("depth", "resnet34", 128),
    _point("depth", "resnet34", 64),
    _point("depth", "vgg11", 96),
    _point("width", "resnet18", 128, neck_channels=512),
    _point("width", "mobilenetv2_050", 160),
    _point("width", "mobilenetv2_100", 160),
    _point("width", "mobilenetv2_140", 160),
)
"""Chosen so that weights, operations and bytes part company: the input size changes the latter two
alone, the batch none of them for a picture; depthwise convolutions (MobileNetV2) have few weights
and operations but many bytes, VGG's large maps many operations for its weights."""


def sweep_for(device: torch.device) -> tuple[Point, ...]:
    """:data:`SWEEP`; on a GPU, which small work would leave waiting for Python, with twice the
    input's side and eight times the batch."""
    if device.type == "cpu":
        return SWEEP
    return tuple(
        Point(
            point.varied,
            replace(point.model, image_size=2 * point.model.image_size),
            8 * point.batch_size,
        )
        for point in SWEEP
    )


def measure_sweep(
    points: Sequence[Point],
    device: torch.device,
    *,
    time_budget_s: float,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[MeasuredPoint, ...]:
    """Counts and times every point, by turns: each round runs one step and one inference of each.

    Args:
        points: with distinct names.
        device: where they run, with the threads that torch has.
        time_budget_s: seconds for all rounds; at least `MIN_ROUNDS` are run, at most `MAX_ROUNDS`.
        on_progress: takes a line now and then.
    """
    started = time.perf_counter()
    models: dict[ModelConfig, SSD] = {}
    costs, runs = [], []
    for point in points:
        if point.model not in models:
            models[point.model] = place(build_model(point.model, NUM_CLASSES), Config(), device)
        model = models[point.model]
        costs.append(count_complexity(model, point.model.image_size, batch_size=point.batch_size))
        runs += [training_step(model, point, device), inference(model, point, device)]
    on_progress(f"sweep: {len(points)} detectors built, now timed by turns")
    remaining_s = time_budget_s - (time.perf_counter() - started)
    seconds = time_by_turns(runs, time_budget_s=remaining_s, on_progress=on_progress)
    return tuple(
        MeasuredPoint(
            point,
            weights=cost.total_params,
            training=_for_one_picture(cost.training.step, of_step, point.batch_size),
            inference=_for_one_picture(cost.training.forward, of_inference, point.batch_size),
            num_timed=len(of_step),
        )
        for point, cost, of_step, of_inference in zip(
            points, costs, seconds[::2], seconds[1::2], strict=True
        )
    )


def time_by_turns(
    runs: Sequence[Callable[[], object]],
    *,
    time_budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[list[float]]:
    """Seconds of each run in each round: all are run once a round, one after the other, so that a
    machine that gets slower or faster meanwhile does so for all of them.

    A first round to warm up is not in the result. No round is begun that would not end within
    `time_budget_s` (were it as long as the last), but at least `MIN_ROUNDS` are run.
    """
    deadline = clock() + time_budget_s
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    for num_rounds in range(1, MAX_ROUNDS + 1):
        round_started = clock()
        for run, of_run in zip(runs, seconds, strict=True):
            started = clock()
            run()
            of_run.append(clock() - started)
        now = clock()
        on_progress(f"sweep: round {num_rounds}, {max(0.0, deadline - now):.0f} s left")
        if num_rounds >= MIN_ROUNDS and now + (now - round_started) > deadline:
            break
    return seconds


def training_step(model: SSD, point: Point, device: torch.device) -> Callable[[], object]:
    """A function that does a training step of the point and waits for its end.

    The learning rate is 0: the arithmetic is the same, and every step starts from the same weights.
    """
    config = Config(model=point.model)
    optimizer = build_optimizer(model, config)
    batch = random_batch(point.batch_size, point.model.image_size)

    def run() -> None:
        train_epoch(
            model,
            model,
            optimizer,
            [batch],
            config=config,
            rate_at=lambda _: 0.0,
            worker=Worker(device),
        )  # returns the loss as a number: on a GPU, too, all is done

    return run


def inference(model: SSD, point: Point, device: torch.device) -> Callable[[], object]:
    """A function that finds the detections of the point's pictures and waits for them."""
    config = Config(model=point.model)
    images = random_batch(point.batch_size, point.model.image_size).images

    def run() -> None:
        detect_in(model.eval(), images.to(device), config)
        synchronise(device)

    return run


def random_batch(batch_size: int, image_size: int, *, num_objects: int = 4) -> Batch:
    """Pictures of noise with `num_objects` objects each, padded to 8 as `collate` pads them; the
    same each time."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, image_size, image_size)
    corner = 0.6 * torch.rand(batch_size, 8, 2, generator=generator)
    side = 0.1 + 0.3 * torch.rand(batch_size, 8, 2, generator=generator)
    labels = torch.randint(1, NUM_CLASSES + 1, (batch_size, 8), generator=generator)
    is_object = (torch.arange(8) < num_objects).expand(batch_size, 8)
    return Batch(
        images=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        boxes_xyxy=torch.where(is_object.unsqueeze(-1), torch.cat([corner, corner + side], -1), 0),
        labels=torch.where(is_object, labels, 0),
        difficult=torch.zeros(batch_size, 8, dtype=torch.bool),
        indices=torch.arange(batch_size),
    )


def _for_one_picture(cost: Cost, seconds: Sequence[float], batch_size: int) -> Measured:
    return Measured(
        macs=cost.macs / batch_size,
        bytes=cost.bytes_moved / batch_size,
        ms=percentiles([1000 * value / batch_size for value in seconds]),
    )
