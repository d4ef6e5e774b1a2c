"""Trains one detector, data-parallel on Ray.

python jobs/train.py --config configs/bccd.yaml --data path/to/VOC --storage runs --name bccd
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ssd_dist.config import load_config, replace_at
from ssd_dist.data.sources import fetch_shown
from ssd_dist.distributed.elastic import parse_workers
from ssd_dist.distributed.joining import join_while_importing
from ssd_dist.distributed.mirror import mirrored, place_in
from ssd_dist.experiment import anchored
from ssd_dist.importing import importing
from ssd_dist.sole_job import sole_job
from ssd_dist.terminal import Terminal, run_job, shown

if TYPE_CHECKING:
    from ssd_dist.distributed.head_start import HeadStart


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train one SSD, data-parallel on Ray. With no flags: on the embedded synthetic pictures."""

    config: Path = Path(__file__).parents[1] / "configs" / "demo.yaml"
    """YAML file; those in configs/ tell what they cost and reach."""
    data: str = "synthetic"
    """Folder of a data set in PASCAL VOC's, COCO's or YOLO's format; the URL of a zip or tar of one
    (https://…/data.zip#sha256=…); VOC2007, VOC2012 or BCCD; or `synthetic`."""
    format: str | None = None
    """`voc`, `coco` or `yolo`; without it, as the configuration says, or by looking at the folder.
    """
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
    hang_timeout: float | None = None
    """Seconds without a finished step after which a worker counts as hung: it is ended, and its
    work taken up again. At least 5, and more than it takes to store a checkpoint; without it twenty
    times the longest pause that the worker has made, and at least 300; 0: never. Until its first
    step has ended it has half an hour at least."""
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
    if arguments.format is not None:
        given["data.format"] = arguments.format
    config, data = anchored(replace_at(config, given), arguments.data)
    fetch_shown(data, terminal)

    def workers_ahead() -> HeadStart | None:
        from ssd_dist.distributed.head_start import start_ahead

        return start_ahead(workers, config)

    with importing():
        head_start = join_while_importing(
            "pandas", "ssd_dist.training", "tensorboardX", meanwhile=workers_ahead
        )
        from ssd_dist.data.fitted_priors import with_fitted_priors
        from ssd_dist.distributed.train import run_training

    config = with_fitted_priors(config, data)
    name = arguments.name or f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    place = place_in(arguments.storage, name)
    with sole_job(place.folder), mirrored(place):
        outcome = run_training(
            config,
            data,
            place.folder,
            terminal,
            num_workers=workers,
            bucket=place.bucket,
            hang_timeout_s=arguments.hang_timeout,
            resume=arguments.resume,
            head_start=head_start,
        )
    terminal.heading(
        f"Best validation mAP {outcome.map_11pt:.4f}, after epoch {outcome.epoch}: "
        f"{shown(outcome.best)}"
    )
    terminal.line(f"Next: python jobs/evaluate.py --experiment {place.shown}")


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))
