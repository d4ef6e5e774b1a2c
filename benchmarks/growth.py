"""How the time of a training step grows with all that it can grow with.

python benchmarks/growth.py [--plot growth.svg] [--data VOC --workers 1 2 4]

Twice: whole steps of a small detector, as a training runs them (`train_epoch`, the batch in
memory), and matching, loss and the loss's backward pass alone, which in a whole step hide behind
the network. Against pictures a step, priors, objects a picture, classes; and, where they are asked
for, workers, which have equally many pictures each, so that a step should take as long with any
number of them (needs a core each). Objects lie at random, or, the worst case, all in one place, so
that all want the same priors.

Each time is the fastest of a few, in seconds of the processor (workers: of the clock). The exponent
is the slope of a line through the logarithms, over all of a range and over its upper half; ends
with status 1 where that of the upper half is above 1.1: worse than linear.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Literal

import torch
import tyro
from job_runs import copy_part, train_job
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import Worker, train_epoch
from ssd_dist.model.ssd import build_model
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.ops.matching import match_priors
from ssd_dist.ops.priors import make_priors
from ssd_dist.optimizer import build_optimizer
from ssd_dist.structures import Batch

LINEAR = 1.1
BATCH, OBJECTS, CLASSES = 8, 8, 20
"""What stays as it is while something else grows."""
STEP, OBJECTIVE = "a whole step", "matching, loss, its backward"
RATIOS = 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0
Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time training steps of growing size."""

    plot: Path | None = None
    """Where to draw the curves: .svg, .png or .pdf."""
    repeats: int = 3
    """Of each time, of which the fastest counts."""
    part: Literal["all", "step", "objective"] = "all"
    """`step`: whole steps alone; `objective`: matching and loss alone."""
    workers: tuple[int, ...] = ()
    """Numbers of workers to run jobs/train.py with; needs --data."""
    data: Path | None = None
    """VOC folder with splits `train` and `val`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds against what grows."""

    what: str
    grows: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Over the whole range."""
        return _slope(self.sizes, self.seconds)

    @property
    def upper_exponent(self) -> float:
        """Over its upper half, where what does not grow counts for least."""
        half = min(len(self.sizes) // 2, len(self.sizes) - 2)
        return _slope(self.sizes[half:], self.seconds[half:])


def _slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    return statistics.linear_regression(list(map(log, sizes)), list(map(log, seconds))).slope


@dataclass(frozen=True, slots=True)
class Growth:
    """One thing that grows."""

    what: str
    grows: str
    sizes: tuple[int, ...]
    """As the axis counts it."""
    make: Callable[[int], Run]
    """For position i of the sizes, what is timed."""


def measure(growth: Growth, repeats: int) -> Curve:
    """Times every size, once unclocked and then `repeats` times."""
    seconds = []
    for i in range(len(growth.sizes)):
        run = growth.make(i)
        run()
        taken = []
        for _ in range(repeats):
            started = time.process_time()
            run()
            taken.append(time.process_time() - started)
        seconds.append(min(taken))
    return Curve(growth.what, growth.grows, growth.sizes, tuple(seconds))


def random_batch(
    batch: int, objects: int, classes: int, side: int, *, crowded: bool = False
) -> Batch:
    """Pictures of noise; objects with sides of 5 to 50 %, or of about 30 % all in one place."""
    generator = torch.Generator().manual_seed(0)
    sides = 0.05 + 0.45 * torch.rand(batch, objects, 2, generator=generator)
    corner = torch.rand(batch, objects, 2, generator=generator) * (1 - sides)
    if crowded:
        corner, sides = 0.3 + corner / 1000, 0.3 + sides / 1000
    return Batch(
        images=torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8),
        boxes_xyxy=torch.cat([corner, corner + sides], 2),
        labels=torch.randint(1, classes + 1, (batch, objects), generator=generator),
        difficult=torch.zeros(batch, objects, dtype=torch.bool),
        indices=torch.arange(batch),
    )


def whole_step(
    batch: int = BATCH,
    num_ratios: int = 2,
    objects: int = OBJECTS,
    classes: int = CLASSES,
    *,
    crowded: bool = False,
) -> Run:
    """One step of a training of the default model; priors are those of `num_ratios` aspects."""
    model_config = ModelConfig(weights="none", aspect_ratios=RATIOS[:num_ratios])
    config = Config(lr=1e-4, precision="fp32", model=model_config)
    model = build_model(config.model, classes).train()
    optimizer = build_optimizer(model, config)
    drawn = random_batch(batch, objects, classes, config.model.image_size, crowded=crowded)
    return lambda: train_epoch(
        model,
        model,
        optimizer,
        itertools.repeat(drawn, 1),
        config=config,
        rate_at=lambda step: 0.0,
        worker=Worker(torch.device("cpu")),
    )


def priors_of(cells: int) -> Tensor:
    """(P, 4) cxcywh: of six maps, the first with `cells` cells a side, each next one with half as
    many; six priors a cell."""
    sides = [max(1, cells >> k) for k in range(6)]
    scales = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87)
    return make_priors([(side, side) for side in sides], scales, [(2.0, 3.0)] * 6)


def objective(
    batch: int = BATCH,
    cells: int = 32,
    objects: int = OBJECTS,
    classes: int = CLASSES,
    *,
    crowded: bool = False,
) -> Run:
    """Matching, loss and the loss's backward pass on random outputs of a network."""
    generator = torch.Generator().manual_seed(0)
    priors_cxcywh = priors_of(cells)
    loc = torch.randn(batch, len(priors_cxcywh), 4, generator=generator).requires_grad_()
    conf = torch.randn(batch, len(priors_cxcywh), classes + 1, generator=generator).requires_grad_()
    drawn = random_batch(batch, objects, classes, 1, crowded=crowded)

    def run() -> None:
        loc.grad = conf.grad = None
        targets = match_priors(drawn.boxes_xyxy, drawn.labels, drawn.difficult, priors_cxcywh)
        sums = multibox_sums(loc, conf, targets, 3.0)
        multibox_loss(sums, 1.0, sums.num_positives).backward()

    return run


def growths() -> list[Growth]:
    """All that is timed in this process."""
    batches = (1, 2, 4, 8, 16, 32)
    ratios = (1, 2, 3, 4, 6, 8)
    in_step = (8, 16, 32, 64, 128, 256)
    cells = (8, 16, 32, 64, 96, 128)
    classes = (5, 10, 20, 40, 80, 160)
    step_priors = tuple(_num_priors(count) for count in ratios)
    alone_priors = tuple(len(priors_of(count)) for count in cells)
    found = [
        Growth(STEP, "pictures", batches, lambda i: whole_step(batches[i])),
        Growth(STEP, "priors", step_priors, lambda i: whole_step(num_ratios=ratios[i])),
        Growth(STEP, "classes", classes, lambda i: whole_step(classes=classes[i])),
        Growth(OBJECTIVE, "pictures", batches, lambda i: objective(batches[i])),
        Growth(OBJECTIVE, "priors", alone_priors, lambda i: objective(cells=cells[i])),
        Growth(OBJECTIVE, "classes", classes, lambda i: objective(classes=classes[i])),
    ]
    for what, make in ((STEP, whole_step), (OBJECTIVE, objective)):
        for crowded in (False, True):
            found.append(
                Growth(
                    what,
                    "objects in one place" if crowded else "objects",
                    in_step,
                    lambda i, make=make, crowded=crowded: make(  # type: ignore[misc]
                        objects=in_step[i], crowded=crowded
                    ),
                )
            )
    return sorted(found, key=lambda growth: (growth.what != STEP, growth.grows))


def _num_priors(num_ratios: int) -> int:
    model_config = ModelConfig(weights="none", aspect_ratios=RATIOS[:num_ratios])
    return len(build_model(model_config, CLASSES).priors_cxcywh)


def with_workers(counts: Sequence[int], data: Path) -> Curve:
    """Seconds of a step of jobs/train.py, pictures loaded and all, eight pictures a worker."""
    config = {"epochs": 3, "lr": 1e-3, "precision": "fp32", "model": {"weights": "none"}}
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        part = copy_part(data, Path(scratch) / "data", 10 * BATCH * max(counts))
        for count in counts:
            sized = {**config, "global_batch_size": BATCH * count}
            history = train_job(sized, part, Path(scratch), f"workers-{count}", workers=count)
            rate = statistics.median(epoch["images_per_second"] for epoch in history[1:])
            seconds.append(BATCH * count / rate)
    return Curve("a whole step, by the clock", "workers", tuple(counts), tuple(seconds))


def draw(curves: Sequence[Curve], path: Path) -> None:
    """A panel for each, with logarithmic axes, and a line of exponent 1 through the last point."""
    columns = 4
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    for i, curve in enumerate(curves, start=1):
        axes = figure.add_subplot(rows, columns, i)
        linear = [curve.seconds[-1] * size / curve.sizes[-1] for size in curve.sizes]
        axes.loglog(curve.sizes, linear, color="0.7", linestyle="--", label="linear")
        axes.loglog(curve.sizes, curve.seconds, marker="o", color="#1f5fa8")
        axes.set_title(f"{curve.what}: {curve.upper_exponent:.2f}", fontsize=9)
        axes.set_xlabel(curve.grows, fontsize=9)
        axes.set_ylabel("seconds", fontsize=9)
        axes.tick_params(labelsize=8, which="both")
    figure.savefig(path)


def main(arguments: Arguments) -> None:
    """Times everything, prints the exponents and draws the curves."""
    if arguments.workers and arguments.data is None:
        sys.exit("--workers needs --data, a VOC folder to train on")
    if len(set(arguments.workers)) == 1:
        sys.exit("--workers needs at least two numbers of workers: growth is between them")
    torch.set_num_threads(1)
    keep_freed_memory()
    console = Console(width=130, highlight=False)
    wanted = {"step": (STEP,), "objective": (OBJECTIVE,), "all": (STEP, OBJECTIVE)}[arguments.part]
    curves = [measure(each, arguments.repeats) for each in growths() if each.what in wanted]
    if arguments.workers:
        assert arguments.data is not None
        curves.append(with_workers(arguments.workers, arguments.data))
    table = Table(
        title=f"{BATCH} pictures, {OBJECTS} objects, {CLASSES} classes but for what grows"
    )
    for column in ("time of", "against", "from", "to", "ms", "exponent", "upper half"):
        table.add_column(column, justify="left" if column in ("time of", "against") else "right")
    for curve in curves:
        milliseconds = " → ".join(f"{1e3 * curve.seconds[i]:.1f}" for i in (0, -1))
        ends = (f"{curve.sizes[i]:,}" for i in (0, -1))
        exponents = f"{curve.exponent:.2f}", f"{curve.upper_exponent:.2f}"
        table.add_row(curve.what, curve.grows, *ends, milliseconds, *exponents)
    console.print(table)
    if arguments.plot is not None:
        draw(curves, arguments.plot)
    worse = [curve for curve in curves if curve.upper_exponent > LINEAR]
    for curve in worse:
        console.print(f"worse than linear: {curve.what} against {curve.grows}")
    console.print(f"{len(worse)} of {len(curves)} grow worse than linear, 0 may")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
