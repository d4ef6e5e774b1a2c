"""A search over trainings with Ray Tune, led by an Optuna study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_dist.config import Config, SearchConfig, replace_at
from ssd_dist.data import open_split
from ssd_dist.distributed.buckets import local_copy, shown_location
from ssd_dist.distributed.cluster import check_fits, check_gpu_share, connect
from ssd_dist.distributed.first_points import plan_search
from ssd_dist.distributed.repeats import best_repeat, plan_repeats, repeat_notes, run_repeats
from ssd_dist.distributed.samplers import sampler_notes
from ssd_dist.distributed.storage_check import check_storage
from ssd_dist.distributed.study import COMMIT, FINGERPRINT, open_study
from ssd_dist.distributed.study_start import begin, place_of, study_so_far
from ssd_dist.distributed.study_storage import record_place, storage_errors
from ssd_dist.distributed.trial import TrialRequest
from ssd_dist.distributed.trial_lines import announce
from ssd_dist.distributed.tuner import run_study
from ssd_dist.distributed.warm_start import is_warm, read_earlier
from ssd_dist.distributed.watchdog import check_limit
from ssd_dist.experiment import (
    TrialRecord,
    check_start,
    finish_experiment,
    ranked,
    reasons,
    start_experiment,
    write_trials,
)
from ssd_dist.provenance import git_commit
from ssd_dist.repeated import Repeated, write_repeats
from ssd_dist.terminal import JobFailedError, Terminal, shown
from ssd_dist.training import prepare


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a finished search found."""

    folder: Path
    best: Path
    """best.json."""
    trials: tuple[TrialRecord, ...]
    """Best first."""
    repeats: tuple[Repeated, ...]
    """What was trained again with several seeds, best mean first; empty where nothing was."""


def run_search(
    config: Config,
    data: str,
    folder: Path,
    terminal: Terminal,
    *,
    concurrent: int | None = None,
    workers_per_trial: int = 1,
    gpus_per_trial: float | None = None,
    study_storage: str | None = None,
    warm_start: Path | None = None,
    bucket: str | None = None,
    hang_timeout_s: float | None = None,
    resume: bool = False,
) -> SearchOutcome:
    """Searches until the study holds `config.search.trials` finished trials, or all of a grid.

    Args:
        config: the values that are not searched, and `config.search`.
        data: a data set, as `open_split` takes it.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        concurrent: trials at once; None: as many as fit.
        workers_per_trial: 1 trains inside the trial; more start Ray Train inside it.
        gpus_per_trial: share of a GPU that a trial of one worker takes, above 0 and at most 1;
            None: all of it.
        study_storage: SQLAlchemy URL of the study's database; None: a file in `folder`, or, with
            `resume`, where the study lies.
        warm_start: folder of an earlier search, whose finished trials the sampler is to know.
        bucket: URI of the experiment, if `folder` is a mirror of it (see mirror.py): Ray's own
            files go there.
        hang_timeout_s: as in :func:`run_training`.
        resume: go on with an interrupted search; finished trials are kept, those under way go on
            from their last checkpoint.

    Raises:
        ValueError, OSError: what was asked for can't be; nothing was started.
        JobFailedError: the search was interrupted, or no trial finished an epoch.
    """
    check_gpu_share(gpus_per_trial, workers_per_trial)
    check_limit(hang_timeout_s)
    check_start(folder, "tune", config, data, resume=resume)
    place = place_of(folder, study_storage, warm_start, resume=resume)
    study = study_so_far(folder, place, config)
    fingerprint = open_split(
        data, config.data.train_split, config.data.class_names, data_format=config.data.format
    ).fingerprint
    earlier = None
    with storage_errors(place):
        if place.warm_start is not None and (study is None or not is_warm(study)):
            earlier = read_earlier(place.warm_start, config, place.url, fingerprint)
    plan = plan_search(config)

    preparation = prepare(config, data)
    terminal.introduce(preparation)
    _check_batches(config, preparation.num_train, workers_per_trial)
    cluster = connect(terminal, dashboard=True)
    share = 1.0 if gpus_per_trial is None else gpus_per_trial
    at_once = concurrent or max(1, cluster.num_slots(share) // max(1, workers_per_trial))
    if concurrent is None:
        concurrent = min(at_once, plan.num_trials)
    check_fits(
        cluster,
        config,
        num_trials=concurrent,
        workers_per_trial=workers_per_trial,
        gpus_per_trial=gpus_per_trial,
        space=config.search.space,
    )
    check_storage(bucket or str(folder))
    terminal.line(
        f"{plan.num_trials} trials, {concurrent} at once with {workers_per_trial} "
        f"{cluster.device} worker(s) each, in "
        + (shown(folder) if bucket is None else shown_location(bucket))
        + ("" if place.own_file else f", the study in {place.shown}")
    )
    for note in (*sampler_notes(config.search), *plan.notes):
        terminal.line(f"note: {note}")

    if not resume:
        start_experiment(folder, "tune", config, data)
    record_place(folder, place)
    with storage_errors(place):
        study = study or open_study(place, config)
        begin(study, config, plan, earlier, terminal, place.artifacts)
    announce(folder, bucket, terminal)
    request = TrialRequest(
        config=dataclasses.replace(config, search=SearchConfig(space={})),
        data=data,
        folder=folder,
        storage=bucket or str(folder),
        cluster=cluster,
        num_workers=workers_per_trial,
        gpus_per_worker=share,
        objectives=config.search.objectives,
        hang_timeout_s=hang_timeout_s,
    )
    attributes = {COMMIT: git_commit(), FINGERPRINT: fingerprint}
    records = run_study(
        study,
        config,
        place,
        request,
        terminal,
        num_trials=plan.num_trials,
        concurrent=concurrent,
        attributes=attributes,
    )
    write_trials(folder, records)
    best = _best_trial(records)
    planned = plan_repeats(config, records)
    if planned is None:
        return _finish(config, folder, records, best)
    terminal.line(planned.introduction)
    repeats = run_repeats(
        planned, place, request, terminal, concurrent=at_once, attributes=attributes
    )
    for note in repeat_notes(repeats):
        terminal.line(f"note: {note}")
    write_repeats(folder, repeats)
    return _finish(config, folder, records, best_repeat(repeats), repeats)


def _check_batches(config: Config, num_train: int, workers_per_trial: int) -> None:
    """Raises ValueError if the space admits a global batch that is larger than the training split,
    or smaller than a trial's workers."""
    values = config.search.space.get("global_batch_size")
    for batch_size in values.examples() if values is not None else ():
        if not workers_per_trial <= batch_size <= num_train:
            raise ValueError(
                f"search.space['global_batch_size'] admits {batch_size}: with {num_train} training "
                f"pictures and {workers_per_trial} worker(s) a trial it must lie between "
                f"{workers_per_trial} and {num_train}"
            )


def _best_trial(trials: Sequence[TrialRecord]) -> TrialRecord:
    """The best of a search; of equal accuracy the fastest, where time is an objective as well."""
    best = next(iter(ranked([t for t in trials if t.pareto] or trials)), None)
    if best is None or best.map_11pt is None or best.checkpoint is None:
        raise JobFailedError(f"none of {len(trials)} trials finished an epoch{reasons(trials)}")
    return best


def _finish(
    config: Config,
    folder: Path,
    trials: Sequence[TrialRecord],
    best: TrialRecord,
    repeats: Sequence[Repeated] = (),
) -> SearchOutcome:
    """Writes best.json; `best` is a trial of the search, or a training of the best of `repeats`."""
    assert best.map_11pt is not None
    assert best.checkpoint is not None
    with local_copy(best.checkpoint) as checkpoint:
        path = finish_experiment(
            folder,
            replace_at(config, best.parameters),
            best.map_11pt,
            checkpoint,
            **({"repeats": repeats[0].summary()} if repeats else {}),
        )
    return SearchOutcome(folder, path, tuple(ranked(trials)), tuple(repeats))
