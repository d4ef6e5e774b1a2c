"""A data-parallel training with Ray Train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
)
from ray.train.torch import TorchTrainer

from ssd_dist.config import Config, to_mapping
from ssd_dist.distributed.buckets import below, shown_location
from ssd_dist.distributed.cluster import Cluster, connect, silence, worker_resources
from ssd_dist.distributed.elastic import (
    RESIZE_INTERVAL_S,
    NumWorkers,
    shown_workers,
    training_workers,
)
from ssd_dist.distributed.event_files import EventFiles
from ssd_dist.distributed.failures import root_cause
from ssd_dist.distributed.head_start import HeadStart
from ssd_dist.distributed.janitor import start_janitor
from ssd_dist.distributed.joining import started_here
from ssd_dist.distributed.memory import LESS_MEMORY
from ssd_dist.distributed.mirror import RAY
from ssd_dist.distributed.patience import StorageLostError, is_full, patiently
from ssd_dist.distributed.preemption import saving_on_sigterm
from ssd_dist.distributed.process_group import NodeTorchConfig
from ssd_dist.distributed.progress import follow_training
from ssd_dist.distributed.progress_board import ProgressBoard, new_board
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.storage_check import check_storage
from ssd_dist.distributed.train_worker import train_worker
from ssd_dist.distributed.trainer import LoneTrainer, Trainer
from ssd_dist.distributed.watchdog import check_limit
from ssd_dist.experiment import check_start, finish_experiment, start_experiment
from ssd_dist.terminal import JobFailedError, Terminal, shown
from ssd_dist.training import prepare

MAX_WORKER_FAILURES = 3
"""Lost workers or nodes that a training survives; each costs the epoch under way."""
MAX_STORAGE_LOSSES = 5
"""How often the storage may be gone just when Ray's controller writes to it; the same cost."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a finished training found."""

    folder: Path
    best: Path
    """best.json."""
    map_11pt: float
    """Best validation mAP of its epochs."""
    epoch: int
    """The epoch that reached it."""


def run_training(
    config: Config,
    data: str,
    folder: Path,
    terminal: Terminal,
    *,
    num_workers: NumWorkers | None = None,
    bucket: str | None = None,
    hang_timeout_s: float | None = None,
    resume: bool = False,
    head_start: HeadStart | None = None,
) -> TrainingOutcome:
    """Trains on the cluster; the experiment's `folder` then holds best.json and the checkpoints.

    Args:
        config: the whole configuration.
        data: a data set, as `open_split` takes it.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        num_workers: a number, or a range within which the training shrinks and grows as machines
            go and come; None: one a GPU, or one a CPU core where there is no GPU.
        bucket: URI of the experiment, if `folder` is a mirror of it (see mirror.py): Ray's own
            files go there.
        hang_timeout_s: seconds without a finished step after which a worker is ended and its work
            taken up again; None: by what it has shown so far (see watchdog.py); 0: never.
        resume: go on from the last checkpoint.
        head_start: workers that are there already, on a Ray that this job started.

    Raises:
        ValueError, OSError: what was asked for can't be; nothing was started.
        JobFailedError: the training failed or diverged.
    """
    check_limit(hang_timeout_s)
    check_start(folder, "train", config, data, resume=resume)
    terminal.introduce(prepare(config, data))
    cluster = connect(terminal)
    num_workers = training_workers(num_workers, cluster, config)
    storage = bucket or str(folder)
    check_storage(storage)
    terminal.line(
        f"training on {shown_workers(num_workers)} {cluster.device} worker(s), "
        "in " + (shown(folder) if bucket is None else shown_location(bucket))
    )
    if not resume:
        start_experiment(folder, "train", config, data)

    start_janitor()
    board = new_board()

    def trainer() -> TorchTrainer:
        return build_trainer(
            config,
            data,
            RAY,
            cluster,
            Safeguards(storage, "training", hang_timeout_s),
            num_workers=num_workers,
            alone=started_here(),
            head_start=head_start,
            progress=board,
        )

    with (
        follow_training(board, terminal, config, EventFiles(folder)),
        silence(),
        saving_on_sigterm("training"),
    ):
        try:
            result = fit(trainer, storage)
        except StorageLostError as error:
            raise JobFailedError(f"{error}; --resume goes on from the last epoch") from error
        except Exception as error:
            raise JobFailedError(
                f"the training failed: {root_cause(error, LESS_MEMORY)}"
            ) from error
        reason = board.divergence()
    if reason is not None:
        raise JobFailedError(f"the training diverged: {reason}")
    kept = result.best_checkpoints or []
    best, metrics = max(kept, key=lambda pair: pair[1]["map_11pt"])
    with best.as_directory() as checkpoint:
        path = finish_experiment(folder, config, metrics["map_11pt"], Path(checkpoint))
    return TrainingOutcome(folder, path, metrics["map_11pt"], int(metrics["epoch"]))


def build_trainer(
    config: Config,
    data: str,
    name: str,
    cluster: Cluster,
    safeguards: Safeguards,
    *,
    num_workers: NumWorkers,
    alone: bool = False,
    head_start: HeadStart | None = None,
    progress: ProgressBoard | None = None,
    resume: str | None = None,
    callbacks: list[Any] | None = None,
) -> TorchTrainer:
    """The Ray Train run whose files lie in `name` in the experiment, not yet started. A run that
    was cut off goes on where it stopped; one that has no checkpoint yet, from that at the location
    `resume`. `alone`: nothing else runs on this Ray, which ends with the training; `head_start`:
    workers that are there already, which then are taken."""
    run = below(safeguards.storage, *name.split("/"))
    request = {
        "alone": alone,
        "config": to_mapping(config),
        "data": data,
        "device_type": cluster.device,
        "progress": progress,
        "resume": resume,
        "run": run,
        "safeguards": asdict(safeguards),
    }
    kind = partial(LoneTrainer, head_start=head_start) if alone else Trainer
    return kind(
        train_worker,
        train_loop_config=request,
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # mypy sees that of Train v1
            num_workers=num_workers,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
            use_gpu=bool(cluster.num_gpus),
            resources_per_worker=worker_resources(cluster),
        ),
        torch_config=NodeTorchConfig(),  # type: ignore[arg-type]  # all that it has to be
        run_config=RunConfig(
            name=name.rpartition("/")[2],
            storage_path=below(safeguards.storage, *name.split("/")[:-1]),
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="map_11pt"
            ),
            callbacks=callbacks or [],
        ),
    )


def fit(make_trainer: Callable[[], TorchTrainer], storage: str) -> Result:
    """Runs a training to its end, whatever becomes of the storage in between.

    Ray's controller keeps its books there after every epoch, and ends where it can't. Once the
    storage is back, the run goes on from its last checkpoint.

    Args:
        make_trainer: see :func:`build_trainer`.
        storage: the experiment's location.

    Raises what `TorchTrainer.fit` raises; StorageLostError if the storage does not come back.
    """
    for _ in range(MAX_STORAGE_LOSSES):
        try:
            return make_trainer().fit()
        except (ControllerError, OSError) as error:
            failure = getattr(error, "controller_failure", error)
            if not isinstance(failure, OSError):
                raise
            patiently(partial(_raise_if_full, failure), storage)
    return make_trainer().fit()


def _raise_if_full(error: BaseException) -> None:
    """A full disk is not waited for."""
    if is_full(error):
        raise error
