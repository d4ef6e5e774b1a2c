"""How a search's study is begun, or taken up where an earlier driver left it."""

from __future__ import annotations

from pathlib import Path

import optuna

from ssd_dist.config import Config
from ssd_dist.distributed.first_points import Plan
from ssd_dist.distributed.study import close_finished, enqueue, load_study, open_study
from ssd_dist.distributed.study_storage import (
    StudyPlace,
    existing_place,
    has_place,
    new_place,
    open_storage,
)
from ssd_dist.distributed.warm_start import EarlierTrials, enter_priors
from ssd_dist.terminal import Terminal, shown


def place_of(
    folder: Path, storage: str | None, warm_start: Path | None, *, resume: bool
) -> StudyPlace:
    """Where the study lies or is to lie, and what it starts from."""
    if not (resume and has_place(folder)):
        return new_place(folder, storage, warm_start)
    place = existing_place(folder, storage)
    if warm_start is not None and warm_start != place.warm_start:
        started = "without one" if place.warm_start is None else f"from {place.warm_start}"
        raise ValueError(
            f"--warm-start {shown(warm_start)}: experiment {folder} was started {started}; resume "
            "it without the flag"
        )
    return place


def study_so_far(folder: Path, place: StudyPlace, config: Config) -> optuna.Study | None:
    """The study of a search that is resumed; None if there is none yet. Connects to a database in
    any case, so that one that can't be used is told before anything is started."""
    if not has_place(folder):
        if not place.own_file:
            open_storage(place)
        return None
    if (folder / "ray").is_dir():  # trials were started, so the study was there
        try:
            load_study(place)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}: put it back, say where it is by --study-storage, or take another --name"
            ) from None
    return open_study(place, config)


def begin(
    study: optuna.Study,
    config: Config,
    plan: Plan,
    earlier: EarlierTrials | None,
    terminal: Terminal,
    artifacts: Path | None,
) -> None:
    """Brings a study to where its trials can start, wherever an earlier driver was killed."""
    if earlier is not None:
        for line in earlier.lines():
            terminal.line(line)
        enter_priors(study, earlier)
    enqueue(study, plan)
    close_finished(study, config.epochs, artifacts)
