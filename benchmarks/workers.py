"""What Ray costs a data-parallel training, and what a second worker brings.

python benchmarks/workers.py --data VOC

Three trainings take turns, epoch by epoch (see by_turns.py): `jobs/train.py` with two workers of
one thread, the same loop under torchrun with two processes of one thread, and `jobs/train.py` with
one worker of one thread; the same global batch, decoded pictures already in the cache. An epoch's
pictures a second, the first epoch left out. Ends with status 1 if two workers under Ray reach less
than 0.97 of torchrun's pictures a second, or less than 1.85 times one worker's: medians over the
turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from by_turns import Run, take_turns
from job_runs import copy_part, history, train_command
from rich.console import Console
from rich.table import Table

from ssd_dist.allocator import ENVIRONMENT
from ssd_dist.config import from_mapping
from ssd_dist.data.dataset import steps_per_epoch

HERE = Path(__file__).parent
AGAINST_TORCHRUN, AGAINST_ONE = 0.97, 1.85


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare Ray with torchrun, and two workers with one."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    model: str = "ssdlite320_mobilenet_v3_large"
    """A configuration's `model.architecture`."""
    pictures: int = 128
    """Pictures of an epoch."""
    batch: int = 32
    """Pictures a step, over all workers: as in the SSD paper."""
    turns: int = 24
    """Epochs of each, after the first one. One differs from the next by a tenth."""
    settle: float = 1.5
    """Seconds that the end of an epoch may take: a large network's checkpoint, some."""


def main(arguments: Arguments) -> None:
    """Runs all, and prints the table."""
    config: dict[str, Any] = {
        "epochs": 1 + arguments.turns,
        "lr": 1e-3,
        "global_batch_size": arguments.batch,
        "precision": "fp32",
        "model": {"architecture": arguments.model, "weights": "none"},
    }
    size = from_mapping(config).model.image_size
    in_epoch = steps_per_epoch(arguments.pictures, arguments.batch) * arguments.batch
    with tempfile.TemporaryDirectory() as scratch:
        storage = Path(scratch)
        data = copy_part(arguments.data, storage / "data", arguments.pictures)
        runs = {
            name: Run(
                train_command(config, data, storage, name, workers=count),
                storage / f"{name}.log",
                # A Ray of its own each, as there is where a job finds none.
                {**os.environ, "RAY_TMPDIR": str(storage / str(count))},
                settle_s=arguments.settle,
            )
            for name, count in (("ray-2", 2), ("ray-1", 1))
        }
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", "2", str(HERE / "torchrun_loop.py")]
        runs["torchrun"] = Run(
            [*torchrun, storage / "ray-2.yaml", data],
            storage / "torchrun.log",
            {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"},
            settle_s=arguments.settle,
        )
        take_turns(list(runs.values()), config["epochs"])
        lines = runs["torchrun"].words().splitlines()
        rates = {
            "torchrun": [float(line.split()[1]) for line in lines if line.startswith("epoch ")],
            **{
                name: [epoch["images_per_second"] for epoch in history(storage / name)]
                for name in ("ray-2", "ray-1")
            },
        }

    def active(name: str) -> list[float]:
        seconds = runs[name].without_pauses([in_epoch / rate for rate in rates[name]])
        return [in_epoch / each for each in seconds[1:]]

    rows = list(zip(*(active(name) for name in ("ray-2", "torchrun", "ray-1")), strict=True))
    table = Table(
        title=f"{arguments.model}, {size} pixels, {arguments.pictures} pictures, "
        f"batch {arguments.batch}"
    )
    for column in (
        "turn",
        "Ray, 2 workers",
        "torchrun, 2",
        "Ray, 1 worker",
        "of torchrun",
        "of one",
    ):
        table.add_column(column, justify="right")
    for turn, (two, torchrun, one) in enumerate(rows):
        cells = (f"{rate:.2f}/s" for rate in (two, torchrun, one))
        table.add_row(str(turn), *cells, f"{two / torchrun:.3f}", f"{two / one:.2f}")
    of_torchrun = statistics.median(two / torchrun for two, torchrun, _ in rows)
    of_one = statistics.median(two / one for two, _, one in rows)
    console = Console(width=110)
    console.print(table)
    console.print(
        f"median: {of_torchrun:.3f} of torchrun ({AGAINST_TORCHRUN} needed), "
        f"{of_one:.2f} times one worker ({AGAINST_ONE} needed)"
    )
    sys.exit(of_torchrun < AGAINST_TORCHRUN or of_one < AGAINST_ONE)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
