"""A search over trainings with Ray Tune, led by an Optuna study."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from ssd_dist.config import Config, SearchConfig, from_mapping, replace_at, to_mapping
from ssd_dist.distributed.cluster import check_fits, connect, silence, worker_resources
from ssd_dist.distributed.study import (
    CheckpointRecorder,
    StudyScheduler,
    StudySearcher,
    close_finished,
    num_finished,
    open_study,
    trial_records,
)
from ssd_dist.distributed.train import build_trainer
from ssd_dist.distributed.worker import return_memory, train_and_report
from ssd_dist.experiment import (
    TrialRecord,
    check_start,
    finish_experiment,
    ranked,
    start_experiment,
    write_trials,
)
from ssd_dist.terminal import JobFailedError, Terminal, format_value, shown
from ssd_dist.training import prepare

MAX_TRIAL_FAILURES = 2
"""Lost workers that a trial survives; each costs the epoch under way."""


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
    resume: bool = False,
) -> SearchOutcome:
    """Searches until the study holds `config.search.trials` finished trials.

    Args:
        config: the values that are not searched, and `config.search`.
        data: a VOC root, or `synthetic`.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        concurrent: trials at once; None: as many as fit.
        workers_per_trial: 1 trains inside the trial; more start Ray Train inside it.
        resume: go on with an interrupted search; finished trials are kept, those under way go on
            from their last checkpoint.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: what was asked for can't be; nothing was
            started.
        JobFailedError: the search was interrupted, or no trial finished an epoch.
    """
    check_start(folder, "tune", config, data, resume=resume)
    terminal.introduce(prepare(config, data))
    cluster = connect(terminal)
    if concurrent is None:
        most = max(1, cluster.num_slots // max(1, workers_per_trial))
        concurrent = min(most, config.search.trials)
    check_fits(cluster, config, num_trials=concurrent, workers_per_trial=workers_per_trial)
    terminal.line(
        f"{config.search.trials} trials, {concurrent} at once with {workers_per_trial} "
        f"{cluster.device} worker(s) each, in {shown(folder)}"
    )
    start_experiment(folder, "tune", config, data)
    study = open_study(folder / "study.db", config)
    close_finished(study, config)
    num_left = config.search.trials - num_finished(study)
    if num_left > 0:
        searcher = StudySearcher(study, config)
        request = {
            "config": to_mapping(dataclasses.replace(config, search=SearchConfig(space={}))),
            "data": data,
            "folder": str(folder),
            "cluster": cluster,
            "num_workers": workers_per_trial,
        }
        trainable = tune.with_resources(
            tune.with_parameters(_run_trial, request=request),
            # The nested workers reserve their own; Tune refuses a trial that reserves nothing.
            worker_resources(cluster) if workers_per_trial == 1 else {"cpu": 0, "memory": 100e6},
        )
        lines = _TrialLines(searcher, terminal, trial_records(study), config.search.trials)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric="map_11pt",
                mode="max",
                search_alg=searcher,
                scheduler=StudyScheduler(searcher),
                num_samples=num_left,
                max_concurrent_trials=concurrent,
                # A trial of several workers waits inside Ray Train and can't hand its actor on.
                reuse_actors=workers_per_trial == 1,
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                # A name of its own each time: Ray Tune would take up its own snapshot otherwise.
                name=f"search-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=str(folder / "ray"),
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=2, checkpoint_score_attribute="map_11pt"
                ),
                failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
                callbacks=[CheckpointRecorder(searcher), lines],
                verbose=0,
            ),
        )
        with terminal.bar("search"), silence():
            tuner.fit()
        if (done := num_finished(study)) < config.search.trials:
            # Ray Tune returns from an interrupt as if all were well.
            raise JobFailedError(
                f"the search stopped after {done} of {config.search.trials} trials: go on with it "
                "by --resume"
            )
    return _conclude(config, folder, trial_records(study))


def _conclude(config: Config, folder: Path, trials: list[TrialRecord]) -> SearchOutcome:
    write_trials(folder, trials)
    best = ranked(trials)[0] if trials else None
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


def _run_trial(suggestion: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """One trial: a training in this process, or, with several workers, a Ray Train run."""
    return_memory()
    config = replace_at(from_mapping(request["config"]), suggestion["parameters"])
    if request["num_workers"] == 1:
        _train_here(config, suggestion, request)
    else:
        _train_nested(config, suggestion, request)


def _train_here(config: Config, suggestion: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    # After a lost worker Ray Tune starts the trial again with its own last checkpoint, which is
    # newer than the one that an earlier driver left.
    checkpoint = tune.get_checkpoint()
    resume = checkpoint.path if checkpoint is not None else suggestion["resume"]

    def report_epoch(metrics: dict[str, Any], folder: Path | None) -> None:
        tune.report(metrics, checkpoint=tune.Checkpoint(str(folder)) if folder else None)

    with tempfile.TemporaryDirectory(prefix="ssd_dist_") as scratch:
        train_and_report(
            config,
            request["data"],
            report_epoch,
            device_type=request["cluster"].device,
            scratch=Path(scratch),
            resume=Path(resume) if resume is not None else None,
        )


def _train_nested(
    config: Config, suggestion: Mapping[str, Any], request: Mapping[str, Any]
) -> None:
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = build_trainer(
        config,
        request["data"],
        Path(request["folder"]) / "ray",
        # The same name after a lost driver of the trial: Ray Train then goes on by itself. After
        # --resume another one: what the study knows is what counts.
        f"trial-{suggestion['number']:04d}-{tune.get_context().get_trial_id()}",
        request["cluster"],
        num_workers=request["num_workers"],
        resume=suggestion["resume"],
        callbacks=[TuneReportCallback()],
    )
    trainer.fit()


def _folder_name(trial: Any) -> str:
    return f"trial-{trial.evaluated_params['number']:04d}"


class _TrialLines(tune.Callback):
    """A line for each trial that ends, and the bar."""

    def __init__(
        self,
        searcher: StudySearcher,
        terminal: Terminal,
        earlier: list[TrialRecord],
        num_trials: int,
    ) -> None:
        self._searcher, self._terminal, self._num_trials = searcher, terminal, num_trials
        self._best = max((trial.map_11pt or 0.0 for trial in earlier), default=0.0)
        self._num_ended = sum(trial.state != "running" for trial in earlier)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch of a trial: the bar tells the best so far."""
        self._best = max(self._best, result.get("map_11pt", 0.0))
        self._advance()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended: complete, pruned or diverged."""
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._end(trial)

    def _end(self, trial: Any) -> None:
        record = self._searcher.record(trial.trial_id)
        self._num_ended += 1
        place = f"{self._num_ended:>3}/{self._num_trials}"
        self._terminal.line(f"{place}  {trial_line(record, self._best)}")
        self._advance()

    def _advance(self) -> None:
        self._terminal.advance(
            self._num_ended, self._num_trials, f"search (best mAP {self._best:.4f})"
        )


def trial_line(trial: TrialRecord, best: float) -> str:
    """A trial in one line."""
    values = "  ".join(f"{name} {format_value(v)}" for name, v in trial.parameters.items())
    accuracy = "-" if trial.map_11pt is None else f"{trial.map_11pt:.4f}"
    return (
        f"trial {trial.number:<3} mAP {accuracy} (best {best:.4f})"
        f"  {trial.state:<8} after {trial.epochs} epochs  {values}"
    )
