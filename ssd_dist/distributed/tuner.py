"""The Ray Tune run of a search: its trials' resources, files and failures."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from ssd_dist.distributed.cluster import worker_resources
from ssd_dist.distributed.searcher import (
    CheckpointRecorder,
    StorageGuard,
    StudyScheduler,
    StudySearcher,
)
from ssd_dist.distributed.study_storage import disk_failure
from ssd_dist.distributed.trial import TrialRequest, run_trial
from ssd_dist.terminal import JobFailedError

MAX_TRIAL_FAILURES = 2
"""Lost workers that a trial survives; each costs the epoch under way."""


def build_tuner(
    request: TrialRequest,
    searcher: StudySearcher,
    lines: tune.Callback,
    *,
    num_trials: int,
    concurrent: int,
) -> tune.Tuner:
    """The run, not yet started, of `num_trials` further trials, `concurrent` at once."""
    single = request.num_workers == 1
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, request=request),
        # The nested workers reserve their own; Tune refuses a trial that reserves nothing.
        worker_resources(request.cluster) if single else {"cpu": 0, "memory": 100e6},
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
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            # A name of its own each time: Ray Tune would take up its own snapshot otherwise.
            name=f"search-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=str(request.folder / "ray"),
            stop=StorageGuard(searcher),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="map_11pt"
            ),
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
            callbacks=[CheckpointRecorder(searcher), lines],
            verbose=0,
        ),
    )


def fit(tuner: tune.Tuner, searcher: StudySearcher) -> None:
    """Runs the trials. Raises JobFailedError if the storage is lost meanwhile."""
    lost = None
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


def _folder_name(trial: Any) -> str:
    return f"trial-{trial.evaluated_params['number']:04d}"
