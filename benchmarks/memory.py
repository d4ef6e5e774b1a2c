"""Whether a worker's memory grows while it trains, and how much it takes.

python benchmarks/memory.py [--data VOC] [--steps 2000] [--accumulation 1]

One worker process trains SSDLite320 at eight pictures a step, as `jobs/train.py` has it do but
without a cluster: its loader and augmentation, epochs with their validation, checkpoint and
pictures, the same modules loaded. Resident memory is read after every step; pages of the decoded
cache, which workers share, count as well. Ends with status 1 if the last quarter's median is more
than 2 % above the second quarter's, or if the process ever held more than 1.5 GiB.

Pages of the libraries' files count, too. They are there once for all processes, and how many of
them a process maps depends on how much of the files the system has cached (404 to 752 MiB for the
same imports); so what the worker takes without them is printed beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from ssd_dist.config import Config, ModelConfig
from ssd_dist.distributed.worker import draw_pictures, this_worker
from ssd_dist.interruption import TrainingInterruptedError
from ssd_dist.training import EpochReport, prepare, train

ALLOWED_GROWTH, ALLOWED_GIB = 0.02, 1.5
BATCH, SIDE = 8, 320
FEWEST_STEPS = 16
"""With fewer a quarter says nothing."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Watch the memory of a training."""

    data: str = "synthetic"
    """VOC folder with splits `train` and `val`, or the embedded pictures."""
    steps: int = 2000
    accumulation: int = 1
    """Parts in which the network meets the eight pictures; see the configuration's field."""


@dataclass(frozen=True, slots=True)
class Resident:
    """Of this process, in bytes."""

    total: int
    mapped: int
    """Part of it that is pages of files: the cache and the libraries."""

    @property
    def own(self) -> int:
        """What no other process has."""
        return self.total - self.mapped


def resident() -> Resident:
    memory = psutil.Process().memory_info()
    return Resident(memory.rss, memory.shared)


def resident_files(folder: Path) -> int:
    """Bytes of the files in `folder` that are mapped in this process and in memory."""
    maps = psutil.Process().memory_maps()
    return sum(each.rss for each in maps if Path(each.path).is_relative_to(folder))


def train_watched(arguments: Arguments, scratch: Path) -> tuple[list[Resident], int]:
    """Trains for so many steps; the memory before the first and after each, and how much of the
    decoded cache was in it at the end."""
    config = Config(
        lr=1e-3,
        epochs=arguments.steps,  # more than it takes: the steps end it
        global_batch_size=BATCH,
        accumulation=arguments.accumulation,
        precision="fp32",
        model=ModelConfig(
            architecture="ssdlite320_mobilenet_v3_large", image_size=SIDE, weights="none"
        ),
    )

    def on_step(step: int, num_steps: int) -> None:
        seen.append(resident())

    def on_epoch(epoch: EpochReport) -> None:
        folder = scratch / "checkpoint"
        epoch.save(folder)
        draw_pictures(epoch, folder)
        shutil.rmtree(folder)

    # As a job's driver does, for all workers.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(prepare, (config, arguments.data))
    seen, of_cache = [resident()], 0
    try:
        train(
            config,
            arguments.data,
            this_worker("cpu"),
            on_epoch,
            on_step=on_step,
            # Asked in a step, it ends after that one.
            check_in=lambda: len(seen) >= arguments.steps,
        )
    except TrainingInterruptedError:  # by which the data set is still held
        of_cache = resident_files(scratch)
    return seen, of_cache


def main(arguments: Arguments) -> None:
    """Trains, and prints the memory by quarters of the steps."""
    if arguments.steps < FEWEST_STEPS:
        sys.exit(f"--steps {arguments.steps}: it takes at least {FEWEST_STEPS} to see a growth")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SSD_DIST_CACHE"] = str(Path(scratch) / "cache")
        (before, *seen), of_cache = train_watched(arguments, Path(scratch))
    minutes = (time.perf_counter() - started) / 60
    quarter = len(seen) // 4
    parts = [seen[i * quarter : (i + 1) * quarter] for i in range(4)]
    table = Table(
        title=f"SSDLite{SIDE}, {BATCH} pictures a step, met in "
        f"{arguments.accumulation} part(s): resident MiB after each step"
    )
    for column in ("steps", "median", "most", "of it its own", "pages of files"):
        table.add_column(column, justify="right")
    for i, part in enumerate(parts):
        totals = [each.total / 2**20 for each in part]
        own, mapped = (
            statistics.median(getattr(each, kind) / 2**20 for each in part)
            for kind in ("own", "mapped")
        )
        cells = (statistics.median(totals), max(totals), own, mapped)
        table.add_row(f"{i * quarter + 1}-{(i + 1) * quarter}", *(f"{each:.1f}" for each in cells))
    medians = [statistics.median(each.total for each in part) for part in parts]
    growth = medians[3] / medians[1] - 1
    taken = (max(each.own for each in seen) + of_cache) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console = Console(width=110, highlight=False)
    console.print(table)
    console.print(
        f"{len(seen)} steps in {minutes:.1f} minutes: the last quarter holds {100 * growth:+.2f} % "
        f"of the second, at most {100 * ALLOWED_GROWTH:+.0f} % allowed; never more than "
        f"{peak:.2f} GiB, {ALLOWED_GIB} allowed; without the libraries' pages {taken:.2f}, "
        f"{of_cache / 2**30:.2f} of them the decoded cache's; {before.total / 2**30:.2f} GiB were "
        "there when the training began: Python and its libraries"
    )
    sys.exit(growth > ALLOWED_GROWTH or peak > ALLOWED_GIB)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
