"""Searches alpha, lambda, the learning rate or any other field with Ray Tune and Optuna.

python jobs/tune.py --config configs/bccd.yaml --data path/to/VOC --storage runs --name search
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from ssd_dist.config import load_config, replace_at
from ssd_dist.distributed.search import run_search
from ssd_dist.experiment import anchored, storage_folder
from ssd_dist.terminal import Terminal, format_value, run_job, shown


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Search the hyperparameters of an SSD: Ray Tune runs the trials, Optuna proposes them and
    stops the weak ones early, as `search` in the configuration says. With no flags: on the embedded
    synthetic pictures."""

    config: Path = Path(__file__).parents[1] / "configs" / "demo.yaml"
    """YAML file with the search space; those in configs/ tell what they cost and reach."""
    data: str = "synthetic"
    """PASCAL VOC folder (with Annotations, ImageSets/Main, JPEGImages), or `synthetic`."""
    storage: str = "runs"
    """Folder of all experiments; shared by all nodes of a cluster."""
    name: str | None = None
    """The experiment's folder in the storage; without it, `tune-` and the time."""
    trials: int | None = None
    """Trials in all; without it, as the configuration says."""
    concurrent: int | None = None
    """Trials at once; without it, as many as the cluster holds."""
    workers_per_trial: int = 1
    """Training processes of each trial: 1 trains inside the trial, more start Ray Train in it."""
    epochs: int | None = None
    """Epochs of a trial that is not stopped early."""
    seed: int | None = None
    """Seed of the trainings and of the sampler."""
    study_storage: str | None = None
    """Database of the search's study, as a URL such as postgresql://user@host/database; without it,
    study.db in the experiment's folder. A password is best left to PGPASSWORD or ~/.pgpass, or the
    URL given as SSD_DIST_STUDY_STORAGE: processes' arguments can be seen by others."""
    warm_start: Path | None = None
    """Folder of an earlier search, whose finished trials the sampler takes into account. They are
    no trials of this search: neither counted nor ranked."""
    resume: bool = False
    """Go on with the search `name`, which was cut off: what is finished stays, and the trials that
    were under way go on from their last checkpoint."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → configuration → one search."""
    config = load_config(arguments.config)
    given = {
        field: getattr(arguments, field)
        for field in ("epochs", "seed")
        if getattr(arguments, field) is not None
    }
    if arguments.trials is not None:
        given["search.trials"] = arguments.trials
    config, data = anchored(replace_at(config, given), arguments.data)
    name = arguments.name or f"tune-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = storage_folder(arguments.storage) / name
    outcome = run_search(
        config,
        data,
        folder,
        terminal,
        concurrent=arguments.concurrent,
        workers_per_trial=arguments.workers_per_trial,
        study_storage=arguments.study_storage,
        warm_start=storage_folder(str(arguments.warm_start)) if arguments.warm_start else None,
        resume=arguments.resume,
    )
    terminal.leaderboard(outcome.trials)
    best = outcome.trials[0]
    values = ", ".join(f"{name} {format_value(v)}" for name, v in best.parameters.items())
    terminal.heading(
        f"Best validation mAP {best.map_11pt:.4f}, trial {best.number} ({values}): "
        f"{shown(outcome.best)}"
    )
    terminal.line(f"Next: python jobs/evaluate.py --experiment {shown(folder)} --data {data}")


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))
