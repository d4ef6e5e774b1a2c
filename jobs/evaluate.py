"""Evaluates a checkpoint on the test split, over the cluster, and writes the report.

python jobs/evaluate.py --experiment runs/search --data path/to/VOC --out runs/search/report
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ssd_dist.data.sources import fetch_shown
from ssd_dist.distributed.mirror import mirrored, place_at
from ssd_dist.experiment import (
    best_checkpoint,
    latest_experiment,
    read_config,
    read_trials,
    storage_folder,
)
from ssd_dist.importing import importing
from ssd_dist.repeated import read_repeats
from ssd_dist.terminal import Terminal, run_job, shown


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a detector: 11-point mAP, pictures, curves, operations and time, as report.html,
    report.md and report.json. With no flags: the experiment in `runs` that finished last."""

    experiment: str | None = None
    """Folder (or s3://…, gs://…) of a training or a search: its best checkpoint is evaluated."""
    checkpoint: str | None = None
    """Folder of one checkpoint, instead of an experiment."""
    data: str | None = None
    """Folder, URL or name of a data set, as jobs/train.py takes it; without it, what the checkpoint
    was trained on."""
    format: str | None = None
    """Of `data`: `voc`, `coco` or `yolo`; without it, told by looking at the folder."""
    split: str = "test"
    """Split to evaluate on."""
    out: str | None = None
    """Folder for the report; without it, `report` in the experiment's (or checkpoint's) folder."""
    workers: int | None = None
    """Processes that hold the network; without it one a GPU, or one a CPU core where there is no
    GPU. They change the speed, not the result."""
    batch_size: int = 16
    """Pictures that a worker takes at a time; changes the speed, not the result."""
    analysis: Literal["none", "quick", "full"] = "quick"
    """How much of the detector's cost is measured. `none`: operations by count, and the time of a
    picture. `quick`: also the training step and the inference segment by segment, in about half a
    minute. `full`: also every device, the law of running time and data-parallel scaling, in about
    five minutes."""
    skip_repeats: bool = False
    """Leave out the mAP on this split of every seed with which a search trained its best and the
    SSD paper's defaults again."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → checkpoint → one evaluation."""
    if arguments.experiment is not None and arguments.checkpoint is not None:
        raise ValueError("give --experiment or --checkpoint, not both")
    out = storage_folder(arguments.out) if arguments.out is not None else None
    place = place_at(arguments.experiment) if arguments.experiment else None
    with mirrored(place, writes=False) if place else contextlib.nullcontext():
        _evaluate(arguments, place.folder if place else None, out, terminal)


def _evaluate(
    arguments: Arguments, experiment: Path | None, out: Path | None, terminal: Terminal
) -> None:
    with importing():
        from ssd_dist.analysis.importance import learn
        from ssd_dist.checkpoint import load_checkpoint
        from ssd_dist.distributed.evaluate import run_evaluation

    if arguments.checkpoint is not None:
        folder = checkpoint = storage_folder(arguments.checkpoint)
        trials = learned = repeats = None
    else:
        folder = experiment or latest_experiment(storage_folder("runs"))
        checkpoint, trials = best_checkpoint(folder), read_trials(folder)
        repeats = read_repeats(folder)
        learned = learn(trials, read_config(folder).search.space) if trials else None
    trained = load_checkpoint(checkpoint)
    data, data_format = trained.data_for(arguments.data, arguments.format)
    fetch_shown(data, terminal)
    outcome = run_evaluation(
        checkpoint,
        data,
        arguments.split,
        out or folder / "report",
        terminal,
        num_workers=arguments.workers,
        batch_size=arguments.batch_size,
        scope=arguments.analysis,
        trials=trials,
        learned=learned,
        repeats=repeats,
        with_repeats=not arguments.skip_repeats,
        data_format=data_format,
    )
    for problem in outcome.problems:
        terminal.line(f"note: {problem}")
    for name, ap in outcome.result.ap_11pt.items():
        terminal.line(f"  AP {name:<20} {'no objects' if ap is None else f'{ap:.4f}'}")
    if outcome.judgement is not None:
        terminal.line(outcome.judgement.sentence)
    terminal.heading(f"{arguments.split} 11-point mAP {outcome.result.map_11pt:.4f}")
    terminal.line(f"Report: {shown(outcome.report)}")


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))
