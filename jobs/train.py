"""Trains one detector, data-parallel on Ray.

python jobs/train.py --config configs/bccd.yaml --data path/to/VOC --storage runs --name bccd
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from ssd_dist.config import load_config, replace_at
from ssd_dist.distributed.elastic import parse_workers
from ssd_dist.distributed.mirror import mirrored, place_in
from ssd_dist.distributed.train import run_training
from ssd_dist.experiment import anchored
from ssd_dist.terminal import Terminal, run_job, shown


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train one SSD, data-parallel on Ray. With no flags: on the embedded synthetic pictures."""

    config: Path = Path(__file__).parents[1] / "configs" / "demo.yaml"
    """YAML file; those in configs/ tell what they cost and reach."""
    data: str = "synthetic"
    """PASCAL VOC folder (with Annotations, ImageSets/Main, JPEGImages), or `synthetic`."""
    storage: str = "runs"
    """Folder of all experiments, which all nodes of a cluster must see, or a bucket:
    s3://bucket/folder, gs://bucket/folder."""
    name: str | None = None
    """The experiment's folder in the storage; without it, `train-` and the time."""
    epochs: int | None = None
    """Passes over the training split."""
    alpha: float | None = None
    """Weight of the localisation loss (Eq. 1)."""
    l2_lambda: float | None = None
    """Strength of L2 regularisation (Eq. 2)."""
    lr: float | None = None
    """Peak learning rate."""
    workers: str | None = None
    """Training processes; without it one a GPU, or one a CPU core where there is no GPU. `1..4`
    takes as many as there is room for, anew whenever machines come or go. The batch is split over
    them: they change the speed, not the result."""
    seed: int | None = None
    """Seed of the initial weights, the order of the pictures and their augmentation."""
    resume: bool = False
    """Go on with the experiment `name`, which was cut off."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → configuration → one training."""
    workers = parse_workers(arguments.workers) if arguments.workers is not None else None
    config = load_config(arguments.config)
    given = {
        field: getattr(arguments, field)
        for field in ("epochs", "alpha", "l2_lambda", "lr", "seed")
        if getattr(arguments, field) is not None
    }
    config, data = anchored(replace_at(config, given), arguments.data)
    name = arguments.name or f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    place = place_in(arguments.storage, name)
    with mirrored(place):
        outcome = run_training(
            config,
            data,
            place.folder,
            terminal,
            num_workers=workers,
            bucket=place.bucket,
            resume=arguments.resume,
        )
    terminal.heading(
        f"Best validation mAP {outcome.map_11pt:.4f}, after epoch {outcome.epoch}: "
        f"{shown(outcome.best)}"
    )
    terminal.line(f"Next: python jobs/evaluate.py --experiment {place.shown} --data {data}")


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))
