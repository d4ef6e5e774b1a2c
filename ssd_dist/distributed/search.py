"""A search over trainings with Ray Tune, led by an Optuna study."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ssd_dist.config import Config, SearchConfig, replace_at
from ssd_dist.data import open_split
from ssd_dist.distributed.cluster import check_fits, connect, silence
from ssd_dist.distributed.first_points import plan_search
from ssd_dist.distributed.samplers import sampler_notes
from ssd_dist.distributed.searcher import (
    StudySearcher,
)
from ssd_dist.distributed.study import (
    COMMIT,
    FINGERPRINT,
    num_finished,
    open_study,
    trial_records,
)
from ssd_dist.distributed.study_start import begin, place_of, study_so_far
from ssd_dist.distributed.study_storage import (
    record_place,
    storage_errors,
)
from ssd_dist.distributed.trial import TrialRequest
from ssd_dist.distributed.trial_lines import TrialLines
from ssd_dist.distributed.tuner import build_tuner, fit
from ssd_dist.distributed.warm_start import is_warm, read_earlier
from ssd_dist.experiment import (
    TrialRecord,
    check_start,
    finish_experiment,
    ranked,
    start_experiment,
    write_trials,
)
from ssd_dist.provenance import git_commit
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


def run_search(
    config: Config,
    data: str,
    folder: Path,
    terminal: Terminal,
    *,
    concurrent: int | None = None,
    workers_per_trial: int = 1,
    study_storage: str | None = None,
    warm_start: Path | None = None,
    resume: bool = False,
) -> SearchOutcome:
    """Searches until the study holds `config.search.trials` finished trials, or all of a grid.

    Args:
        config: the values that are not searched, and `config.search`.
        data: a VOC root, or `synthetic`.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        concurrent: trials at once; None: as many as fit.
        workers_per_trial: 1 trains inside the trial; more start Ray Train inside it.
        study_storage: SQLAlchemy URL of the study's database; None: a file in `folder`, or, with
            `resume`, where the study lies.
        warm_start: folder of an earlier search, whose finished trials the sampler is to know.
        resume: go on with an interrupted search; finished trials are kept, those under way go on
            from their last checkpoint.

    Raises:
        ValueError, OSError: what was asked for can't be; nothing was started.
        JobFailedError: the search was interrupted, or no trial finished an epoch.
    """
    check_start(folder, "tune", config, data, resume=resume)
    place = place_of(folder, study_storage, warm_start, resume=resume)
    study = study_so_far(folder, place, config)
    fingerprint = open_split(data, config.data.train_split, config.data.class_names).fingerprint
    earlier = None
    with storage_errors(place):
        if place.warm_start is not None and (study is None or not is_warm(study)):
            earlier = read_earlier(place.warm_start, config, place.url, fingerprint)
    plan = plan_search(config)

    preparation = prepare(config, data)
    terminal.introduce(preparation)
    _check_batches(config, preparation.num_train, workers_per_trial)
    cluster = connect(terminal)
    if concurrent is None:
        most = max(1, cluster.num_slots // max(1, workers_per_trial))
        concurrent = min(most, plan.num_trials)
    check_fits(cluster, config, num_trials=concurrent, workers_per_trial=workers_per_trial)
    terminal.line(
        f"{plan.num_trials} trials, {concurrent} at once with {workers_per_trial} "
        f"{cluster.device} worker(s) each, in {shown(folder)}"
        + ("" if place.own_file else f", the study in {place.shown}")
    )
    for note in (*sampler_notes(config.search), *plan.notes):
        terminal.line(f"note: {note}")

    start_experiment(folder, "tune", config, data)
    record_place(folder, place)
    with storage_errors(place):
        study = study or open_study(place, config)
        begin(study, config, plan, earlier, terminal)
        records, num_left = trial_records(study), plan.num_trials - num_finished(study)
    if num_left > 0:
        attributes = {COMMIT: git_commit(), FINGERPRINT: fingerprint}
        searcher = StudySearcher(study, config, place, attributes)
        request = TrialRequest(
            config=dataclasses.replace(config, search=SearchConfig(space={})),
            data=data,
            folder=folder,
            cluster=cluster,
            num_workers=workers_per_trial,
            objectives=config.search.objectives,
        )
        lines = TrialLines(searcher, terminal, records, plan.num_trials)
        tuner = build_tuner(request, searcher, lines, num_trials=num_left, concurrent=concurrent)
        with terminal.bar("search"), silence():
            fit(tuner, searcher)
        with storage_errors(place):
            records, num_done = trial_records(study), num_finished(study)
        if num_done < plan.num_trials:
            # Ray Tune returns from an interrupt as if all were well.
            raise JobFailedError(
                f"the search stopped after {num_done} of {plan.num_trials} trials: go on with it "
                "by --resume"
            )
    return _conclude(config, folder, records)


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


def _conclude(config: Config, folder: Path, trials: list[TrialRecord]) -> SearchOutcome:
    write_trials(folder, trials)
    # Of equal accuracy the fastest, where time is an objective as well.
    best = next(iter(ranked([t for t in trials if t.pareto] or trials)), None)
    if best is None or best.map_11pt is None or best.checkpoint is None:
        reasons = {trial.error for trial in trials if trial.error}
        raise JobFailedError(
            f"none of {len(trials)} trials finished an epoch"
            + (f": {'; '.join(sorted(reasons))}" if reasons else "")
        )
    path = finish_experiment(
        folder, replace_at(config, best.parameters), best.map_11pt, Path(best.checkpoint)
    )
    return SearchOutcome(folder, path, tuple(ranked(trials)))
