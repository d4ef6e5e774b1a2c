"""TensorBoard event files of an experiment: a run for each of its trainings.

    tensorboard --logdir EXPERIMENT/tensorboard

A run has the metrics of every epoch as scalars, and its hyperparameters with the best validation
mAP for the HParams page. Ray Tune's own logger has the latest mAP there, not the best; its
hyperparameters include the trial's number and checkpoint; and it counts the epochs of a resumed
trial from 1 again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar

from ssd_dist.config import Config, replace_at
from ssd_dist.experiment import EVENT_FILES

BEST = "best_map_11pt"
"""The value of a run on the HParams page."""
_SCALARS = (
    "map_11pt",
    BEST,
    "loss",
    "loss_conf",
    "loss_loc",
    "l2_term",
    "lr",
    "gradient_norm",
    "images_per_second",
    "seconds",
    "ms_per_image",
)
_PER_CLASS = "ap_11pt/"


class EventFiles:
    """Writes the runs of one experiment, in the driver; each write is on the disk when it returns.

    A run that goes on after an interrupt takes back what was written of the epochs that it repeats.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: the experiment's. Nothing is written yet."""
        self._folder = folder / EVENT_FILES
        self._open: dict[str, tuple[EventsWriter, int]] = {}

    def epoch(
        self, run: str, metrics: Mapping[str, Any], hyperparameters: Mapping[str, Any]
    ) -> None:
        """Enters an epoch of a training.

        Args:
            run: the training's name; of an earlier driver's, too.
            metrics: `epoch` (1, 2, …) and those of :class:`ssd_dist.training.EpochReport`; what is
                not among them is left out.
            hyperparameters: the same at every epoch.
        """
        epoch = int(metrics["epoch"])
        writer, latest = self._open.get(run, (None, 0))
        if writer is None or epoch <= latest:
            if writer is not None:
                writer.close()
            writer = self._start(run, epoch, hyperparameters)
        self._open[run] = writer, epoch
        values = {
            name: value
            for name, value in metrics.items()
            if name in _SCALARS or name.startswith(_PER_CLASS)
        }
        parts = [part for name, value in values.items() for part in scalar(name, value).value]
        _write(writer, Summary(value=parts), step=epoch)
        writer.flush()

    def end(self, run: str) -> None:
        """A training has ended; nothing if no epoch of it was entered."""
        writer, _ = self._open.pop(run, (None, 0))
        if writer is not None:
            _write(writer, hparams({}, {})[2])
            writer.close()

    def _start(self, run: str, epoch: int, hyperparameters: Mapping[str, Any]) -> EventsWriter:
        folder = self._folder / run
        folder.mkdir(parents=True, exist_ok=True)
        # Synchronous: tensorboardX's usual writer hangs once its thread has met a full disk. The
        # suffix keeps apart what is opened within a second.
        writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        # A reader drops what earlier files have of this epoch and later ones.
        start = SessionLog(status=SessionLog.START)
        writer.write_event(Event(wall_time=time.time(), step=epoch, session_log=start))
        experiment, begin, _ = hparams(
            {name: _plain(value) for name, value in hyperparameters.items()}, {BEST: None}
        )
        _write(writer, experiment)
        _write(writer, begin)
        return writer


class TrialEventFiles(TBXLoggerCallback):
    """Writes the runs of a search's trials, in the place of Ray Tune's own logger."""

    def __init__(self, files: EventFiles, config: Config, group: str) -> None:
        """`config`: what the trials have in common. `group`: comes before their names."""
        super().__init__()
        self._files, self._config, self._group = files, config, group

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Tune pickles its callbacks into a snapshot, which nothing here reads.
        return TBXLoggerCallback, ()

    def log_trial_start(self, trial: Any) -> None:
        """Nothing: a run begins with its first epoch."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Called by Ray Tune with each report of a trial; one that went wrong has no epoch."""
        if result["epoch"]:
            searched = trial.config["parameters"]
            self._files.epoch(self._run(trial), result, hyperparameters(self._config, searched))

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Called by Ray Tune when a trial is over."""
        self._files.end(self._run(trial))

    def _run(self, trial: Any) -> str:
        return f"{self._group}/{trial_name(trial)}"


def hyperparameters(config: Config, searched: Mapping[str, Any]) -> dict[str, Any]:
    """What the HParams page shows of a training: alpha, lambda, lr, and what else was searched."""
    trained = replace_at(config, searched)
    return {
        "alpha": trained.alpha,
        "l2_lambda": trained.l2_lambda,
        "lr": trained.lr,
        **searched,
    }


def trial_name(trial: Any) -> str:
    """Name of a trial's run, and of its folder in Ray Tune's files: the same after a resume."""
    return f"trial-{trial.config['number']:04d}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _write(writer: EventsWriter, summary: Summary, step: int = 0) -> None:
    writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
