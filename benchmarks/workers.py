"""What Ray costs a data-parallel training, and what a second worker brings.

python benchmarks/workers.py --data VOC

Three runs of the same training take turns: `jobs/train.py` with two workers of one thread, the same
loop under torchrun with two processes of one thread, and `jobs/train.py` with one worker of one
thread; the same global batch, decoded pictures already in the cache. An epoch's pictures a second,
the first epoch left out. Ends with status 1 if two workers under Ray reach less than 0.97 of
torchrun's pictures a second, or less than 1.85 times one worker's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from job_runs import copy_part, train_job
from rich.console import Console
from rich.table import Table

from ssd_dist.allocator import ENVIRONMENT
from ssd_dist.config import from_mapping

HERE = Path(__file__).parent
AGAINST_TORCHRUN, AGAINST_ONE = 0.97, 1.85
EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare Ray with torchrun, and two workers with one."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    model: str = "ssdlite320_mobilenet_v3_large"
    """A configuration's `model.architecture`."""
    pictures: int = 120
    """Pictures of an epoch."""
    batch: int = 16
    """Pictures a step, over all workers."""
    turns: int = 3
    """Runs of each."""


def under_torchrun(config_file: Path, data: Path) -> list[float]:
    """Every epoch's pictures a second of two processes without Ray."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(HERE / "torchrun_loop.py")]
    done = subprocess.run(
        [*command, str(config_file), str(data)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(f"torchrun failed: {done.stderr[-2000:]}")
    rates: list[float] = json.loads(done.stdout.splitlines()[-1])
    return rates


def main(arguments: Arguments) -> None:
    """Runs all, and prints the table."""
    config: dict[str, Any] = {
        "epochs": EPOCHS,
        "lr": 1e-3,
        "global_batch_size": arguments.batch,
        "precision": "fp32",
        "model": {"architecture": arguments.model, "weights": "none"},
    }
    size = from_mapping(config).model.image_size
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        storage = Path(scratch)
        data = copy_part(arguments.data, storage / "data", arguments.pictures)
        for turn in range(arguments.turns):
            runs = {
                count: train_job(config, data, storage, f"ray-{count}-{turn}", workers=count)
                for count in (2, 1)
            }
            ray = {
                count: [epoch["images_per_second"] for epoch in history]
                for count, history in runs.items()
            }
            torchrun = under_torchrun(storage / f"ray-2-{turn}.yaml", data)
            rates = (statistics.median(run[1:]) for run in (ray[2], torchrun, ray[1]))
            rows.append(tuple(rates))
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
