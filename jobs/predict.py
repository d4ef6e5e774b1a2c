"""Predicts pictures and videos: files, folders, patterns; however many.

python jobs/predict.py --experiment runs/search photos 'more/**/*.jpg' clip.mp4 --out found
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tyro

from ssd_dist.experiment import storage_folder
from ssd_dist.importing import importing
from ssd_dist.terminal import Terminal, run_job, shown

if TYPE_CHECKING:
    from ssd_dist.distributed.prediction_job import Predicted

SOME_UNREADABLE = 3
"""Exit status of a prediction that is finished, but for pictures that can't be read."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Find objects in pictures: detections.json, coco.json and detections.csv, and the pictures
    with their boxes. Ends with status 3 if some of them can't be read."""

    paths: tyro.conf.Positional[tuple[str, ...]] = field(default=())
    """Picture files, videos, folders (with all their subfolders), or patterns in quotes such as
    'photos/**/*.jpg'. Every node must see them."""
    experiment: str | None = None
    """Folder (or s3://…, gs://…) of a training or a search: its best checkpoint predicts. Without
    it and --checkpoint: the experiment in `runs` that finished last."""
    checkpoint: str | None = None
    """Folder of one checkpoint, instead of an experiment."""
    out: str = "predictions"
    """Folder for the results."""
    score_threshold: float = 0.3
    """Detections with a lower score are left out. For AP take 0, which keeps all that the
    checkpoint's own threshold lets through."""
    pictures: bool = False
    """Also write every picture with its boxes, into `pictures` in the folder of the results."""
    workers: int | None = None
    """Processes that hold the network; without it one a GPU, or one a CPU core where there is no
    GPU. They change the speed, not the result."""
    batch_size: int = 16
    """Pictures that a worker takes at a time; changes the speed, not the result."""
    strict: bool = False
    """Stop at the first picture that can't be read, instead of skipping it."""
    resume: bool = False
    """Go on with the prediction in --out that was cut off."""


def main(arguments: Arguments, terminal: Terminal) -> Predicted:
    """Arguments → one prediction."""
    with importing():
        from ssd_dist.distributed.prediction_job import chosen_checkpoint, run_prediction

    out = storage_folder(arguments.out)
    predicted = run_prediction(
        chosen_checkpoint(arguments.experiment, arguments.checkpoint),
        arguments.paths,
        out,
        terminal,
        score_threshold=arguments.score_threshold,
        num_workers=arguments.workers,
        batch_size=arguments.batch_size,
        pictures=arguments.pictures,
        strict=arguments.strict,
        resume=arguments.resume,
    )
    terminal.heading(f"Results: {shown(out)}")
    return predicted


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    ended: list[Predicted] = []
    status = run_job(lambda terminal: ended.append(main(parsed, terminal)))
    sys.exit(status or (SOME_UNREADABLE if ended[0].num_unreadable else 0))
