"""Searches alpha, lambda, the learning rate or any other field with Ray Tune and Optuna.

python jobs/tune.py --config configs/bccd.yaml --data path/to/VOC --storage runs --name search
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
from ssd_dist.distributed.joining import join_while_importing
from ssd_dist.distributed.mirror import mirrored, place_in, pull
from ssd_dist.experiment import anchored
from ssd_dist.importing import importing
from ssd_dist.repeated import spread
from ssd_dist.sole_job import sole_job
from ssd_dist.terminal import Terminal, format_value, run_job, shown

if TYPE_CHECKING:
    from ssd_dist.distributed.search import SearchOutcome


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Search the hyperparameters of an SSD: Ray Tune runs the trials, Optuna proposes them and
    stops the weak ones early, as `search` in the configuration says. With no flags: on the embedded
    synthetic pictures."""

    config: Path = Path(__file__).parents[1] / "configs" / "demo.yaml"
    """YAML file with the search space; those in configs/ tell what they cost and reach."""
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
    """The experiment's folder in the storage; without it, `tune-` and the time."""
    trials: int | None = None
    """Trials in all; without it, as the configuration says."""
    concurrent: int | None = None
    """Trials at once; without it, as many as the cluster holds."""
    workers_per_trial: int = 1
    """Training processes of each trial: 1 trains inside the trial, more start Ray Train in it."""
    gpus_per_trial: float | None = None
    """Share of a GPU that each trial takes: 0.25 puts four on a GPU. Without it a whole one, where
    there are GPUs."""
    top_k: int | None = None
    """Configurations, the search's best, that are trained again in full beside the SSD paper's
    defaults; the best mean wins. 0: none is, and the best trial wins. Without it, as the
    configuration says."""
    repeat_seeds: int | None = None
    """Seeds with which each of them is trained, at least 3; without it, as the configuration says.
    """
    epochs: int | None = None
    """Epochs of a trial that is not stopped early."""
    seed: int | None = None
    """Seed of the trainings and of the sampler."""
    study_storage: str | None = None
    """Database of the search's study, as a URL such as postgresql://user@host/database; without it,
    study.db in the experiment's folder. A password is best left to PGPASSWORD or ~/.pgpass, or the
    URL given as SSD_DIST_STUDY_STORAGE: processes' arguments can be seen by others."""
    warm_start: str | None = None
    """Folder (or s3://…, gs://…) of an earlier search, whose finished trials the sampler takes
    into account. They are no trials of this search: neither counted nor ranked."""
    hang_timeout: float | None = None
    """Seconds without a finished step after which a worker counts as hung: it is ended, and its
    work taken up again. At least 5, and more than it takes to store a checkpoint; without it twenty
    times the longest pause that the worker has made, and at least 300; 0: never. Until its first
    step has ended it has half an hour at least."""
    resume: bool = False
    """Go on with the search `name`, which was cut off: what is finished stays, and the trials that
    were under way go on from their last checkpoint."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → configuration → one search."""
    config = load_config(arguments.config)
    flags = {
        "data.format": arguments.format,
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "search.trials": arguments.trials,
        "search.repeats.top_k": arguments.top_k,
        "search.repeats.num_seeds": arguments.repeat_seeds,
    }
    given = {field: value for field, value in flags.items() if value is not None}
    config, data = anchored(replace_at(config, given), arguments.data)
    fetch_shown(data, terminal)
    with importing():
        join_while_importing(
            "ssd_dist.training", "pandas", "tensorboardX", "optuna", dashboard=True
        )
        from ssd_dist.data.fitted_priors import with_fitted_priors
        from ssd_dist.distributed.search import run_search

    config = with_fitted_priors(config, data)
    name = arguments.name or f"tune-{time.strftime('%Y%m%d-%H%M%S')}"
    place = place_in(arguments.storage, name)
    with sole_job(place.folder), mirrored(place):
        outcome = run_search(
            config,
            data,
            place.folder,
            terminal,
            concurrent=arguments.concurrent,
            workers_per_trial=arguments.workers_per_trial,
            gpus_per_trial=arguments.gpus_per_trial,
            study_storage=arguments.study_storage,
            warm_start=pull(arguments.warm_start) if arguments.warm_start else None,
            bucket=place.bucket,
            hang_timeout_s=arguments.hang_timeout,
            resume=arguments.resume,
        )
    terminal.leaderboard(outcome.trials)
    if outcome.repeats:
        terminal.repeats(outcome.repeats)
        from ssd_dist.analysis.repeats import judge

        terminal.line(judge(outcome.repeats).sentence)
    terminal.heading(f"{_best(outcome)}: {shown(outcome.best)}")
    terminal.line(f"Next: python jobs/evaluate.py --experiment {place.shown}")


def _best(outcome: SearchOutcome) -> str:
    if outcome.repeats:
        winner = outcome.repeats[0]
        reached, name = f"mean validation mAP {spread(winner.values, 4)}", winner.name
        parameters = winner.parameters
    else:
        best = outcome.trials[0]
        reached, name = f"validation mAP {best.map_11pt:.4f}", f"trial {best.number}"
        parameters = best.parameters
    values = ", ".join(f"{key} {format_value(value)}" for key, value in parameters.items())
    return f"Best {reached}, {name} ({values})"


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))
