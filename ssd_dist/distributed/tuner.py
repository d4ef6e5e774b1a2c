"""The Ray Tune run of a search: its trials' resources, files and failures."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
from ray import tune
from ray.tune.execution import class_cache

from ssd_dist.config import Config
from ssd_dist.distributed.buckets import below
from ssd_dist.distributed.cluster import silence, worker_resources
from ssd_dist.distributed.event_files import EventFiles, TrialEventFiles, trial_name
from ssd_dist.distributed.janitor import start_janitor
from ssd_dist.distributed.machines import HEAD
from ssd_dist.distributed.mirror import RAY
from ssd_dist.distributed.preemption import saving_on_sigterm
from ssd_dist.distributed.searcher import (
    CheckpointRecorder,
    StorageGuard,
    StudyScheduler,
    StudySearcher,
)
from ssd_dist.distributed.study import num_finished, trial_records
from ssd_dist.distributed.study_storage import StudyPlace, disk_failure, storage_errors
from ssd_dist.distributed.trial import TrialRequest, run_trial
from ssd_dist.distributed.trial_lines import TrialLines
from ssd_dist.experiment import TrialRecord
from ssd_dist.terminal import JobFailedError, Terminal

MAX_TRIAL_FAILURES = 2
"""Losses of its worker that a trial of one survives; each costs the epoch under way."""


def run_study(
    study: optuna.Study,
    config: Config,
    place: StudyPlace,
    request: TrialRequest,
    terminal: Terminal,
    *,
    num_trials: int,
    concurrent: int,
    attributes: Mapping[str, Any],
    name: str = "search",
    line: Callable[[TrialRecord, float], str] | None = None,
) -> list[TrialRecord]:
    """Runs trials until the study holds `num_trials` finished ones; returns all of them.

    Args:
        study: begun: what an earlier driver left is closed, or under way.
        config: with the search's space, pruner and objectives.
        place: of the study.
        request: what all trials have in common.
        terminal: where progress is shown.
        num_trials: finished trials in the end.
        concurrent: trials at once.
        attributes: attached to each of the study's trials.
        name: what is run, for people and for the folder of Ray's files.
        line: writes a trial that ended, given the best mAP so far.

    Raises JobFailedError if it was interrupted, or the storage was lost.
    """
    with storage_errors(place):
        records, num_left = trial_records(study), num_trials - num_finished(study)
    if num_left <= 0:
        return records
    searcher = StudySearcher(study, config, place, attributes, request.storage)
    lines = TrialLines(searcher, terminal, records, num_trials, name, line)
    tuner = build_tuner(
        request, searcher, lines, num_trials=num_left, concurrent=concurrent, name=name
    )
    if request.num_workers > 1:
        start_janitor()
    with terminal.bar(name), silence(), saving_on_sigterm(name):
        fit(tuner, searcher)
    with storage_errors(place):
        records, num_done = trial_records(study), num_finished(study)
    if num_done < num_trials:
        # Ray Tune returns from an interrupt as if all were well.
        raise JobFailedError(
            f"the {name} stopped after {num_done} of {num_trials} trials: go on with it by --resume"
        )
    return records


def build_tuner(
    request: TrialRequest,
    searcher: StudySearcher,
    lines: tune.Callback,
    *,
    num_trials: int,
    concurrent: int,
    name: str = "search",
) -> tune.Tuner:
    """The run, not yet started, of `num_trials` further trials, `concurrent` at once."""
    # Ray Tune would hand the driver's AWS keys to the trials, in a way that Ray's agents log. The
    # nodes have keys of their own: the storage was checked with them.
    passed_on = class_cache.ENV_VARS_TO_PROPAGATE
    passed_on -= {name for name in passed_on if name.startswith("AWS_")}
    single = request.num_workers == 1
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, request=replace(request, name=name)),
        # The nested workers reserve their own; Tune refuses a trial that reserves nothing. On the
        # head, as Ray Train leads a training from where its trial runs: what leads it must not be
        # lost with one of its workers.
        worker_resources(request.cluster, request.gpus_per_worker)
        if single
        else {"cpu": 0, "memory": 100e6, HEAD: 0.001},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="map_11pt",
            mode="max",
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=num_trials,
            max_concurrent_trials=concurrent,
            # A trial of several workers waits inside Ray Train and can't hand its actor on.
            reuse_actors=single,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            # A name of its own each time: Ray Tune would take up its own snapshot otherwise.
            name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=below(request.storage, RAY),
            stop=StorageGuard(searcher),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="map_11pt"
            ),
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
            callbacks=[
                CheckpointRecorder(searcher),
                TrialEventFiles(EventFiles(request.folder), request.config, name),
                lines,
            ],
            verbose=0,
        ),
    )


def fit(tuner: tune.Tuner, searcher: StudySearcher) -> None:
    """Runs the trials. Raises JobFailedError if the storage is lost meanwhile."""
    lost = None
    # Ray would print the traces of trials that nobody asks after any more.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Nor after Ray Tune's own record of a search, when the disk is full: --resume reads study.db.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    except Exception as error:
        lost = disk_failure(str(error))  # Ray Tune's own files
        if lost is None and searcher.failure is None:
            raise
    if lost := searcher.failure or lost:
        raise JobFailedError(
            f"the search stopped: {lost}; nothing that was finished is lost: put that right, and "
            "go on by --resume"
        )
