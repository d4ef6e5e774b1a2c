"""A data-parallel training with Ray Train."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    get_checkpoint,
    get_context,
    report,
)
from ray.train.torch import TorchTrainer

from ssd_dist.config import Config, from_mapping, to_mapping
from ssd_dist.distributed.buckets import local_copy, shown_location
from ssd_dist.distributed.cluster import Cluster, connect, silence, worker_resources
from ssd_dist.distributed.elastic import (
    RESIZE_INTERVAL_S,
    NumWorkers,
    fitting_workers,
    shown_workers,
)
from ssd_dist.distributed.event_files import EventFiles
from ssd_dist.distributed.janitor import start_janitor
from ssd_dist.distributed.mirror import RAY
from ssd_dist.distributed.progress import follow_training, start_board
from ssd_dist.distributed.storage_check import check_storage
from ssd_dist.distributed.worker import train_and_report
from ssd_dist.experiment import check_start, finish_experiment, start_experiment
from ssd_dist.terminal import JobFailedError, Terminal, shown
from ssd_dist.training import prepare

MAX_WORKER_FAILURES = 3
"""Lost workers or nodes that a training survives; each costs the epoch under way."""


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
    resume: bool = False,
) -> TrainingOutcome:
    """Trains on the cluster; the experiment's `folder` then holds best.json and the checkpoints.

    Args:
        config: the whole configuration.
        data: a VOC root, or `synthetic`.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        num_workers: a number, or a range within which the training shrinks and grows as machines
            go and come; None: one a GPU, or one a CPU core where there is no GPU.
        bucket: URI of the experiment, if `folder` is a mirror of it (see mirror.py): Ray's own
            files go there.
        resume: go on from the last checkpoint.

    Raises:
        ValueError, OSError: what was asked for can't be; nothing was started.
        JobFailedError: the training failed or diverged.
    """
    check_start(folder, "train", config, data, resume=resume)
    terminal.introduce(prepare(config, data))
    cluster = connect(terminal)
    num_workers = fitting_workers(num_workers, cluster, config)
    storage = bucket or str(folder)
    check_storage(storage)
    terminal.line(
        f"training on {shown_workers(num_workers)} {cluster.device} worker(s), "
        "in " + (shown(folder) if bucket is None else shown_location(bucket))
    )
    start_experiment(folder, "train", config, data)

    start_janitor()
    board = start_board()
    trainer = build_trainer(
        config, data, storage, RAY, cluster, num_workers=num_workers, progress=board
    )
    with follow_training(board, terminal, config, EventFiles(folder)), silence():
        try:
            result = trainer.fit()
        except Exception as error:
            raise JobFailedError(f"the training failed: {root_cause(error)}") from error
    if (reason := ray.get(board.divergence.remote())) is not None:
        raise JobFailedError(f"the training diverged: {reason}")
    kept = result.best_checkpoints or []
    best, metrics = max(kept, key=lambda pair: pair[1]["map_11pt"])
    with best.as_directory() as checkpoint:
        path = finish_experiment(folder, config, metrics["map_11pt"], Path(checkpoint))
    return TrainingOutcome(folder, path, metrics["map_11pt"], int(metrics["epoch"]))


def build_trainer(
    config: Config,
    data: str,
    storage: str,
    name: str,
    cluster: Cluster,
    *,
    num_workers: NumWorkers,
    progress: Any = None,
    resume: str | None = None,
    callbacks: list[Any] | None = None,
) -> TorchTrainer:
    """The Ray Train run `name` in a folder or at a URI, not yet started. A run that was cut off
    goes on where it stopped; one that has no checkpoint yet, from that at the location `resume`."""
    request = {
        "config": to_mapping(config),
        "data": data,
        "device_type": cluster.device,
        "progress": progress,
        "resume": resume,
    }
    return TorchTrainer(
        _train_worker,
        train_loop_config=request,
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # mypy sees that of Train v1
            num_workers=num_workers,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
            use_gpu=bool(cluster.num_gpus),
            resources_per_worker=worker_resources(cluster),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="map_11pt"
            ),
            callbacks=callbacks or [],
        ),
    )


@contextlib.contextmanager
def resumed_from(checkpoint: Checkpoint | None, location: str | None) -> Iterator[Path | None]:
    """A folder of this machine with the checkpoint to go on from; None if there is none.

    Args:
        checkpoint: Ray's own last one, after a lost worker: newer than any other.
        location: of the one that an earlier driver left.
    """
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            yield Path(folder)
    elif location is not None:
        with local_copy(location) as copy:
            yield copy
    else:
        yield None


def root_cause(error: BaseException) -> str:
    """The user's part of an error that Ray wrapped: its innermost cause, without the trace.

    Of several workers' errors a plain one tells more than the broken connections of the others.
    """
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        failures = getattr(error, "worker_failures", None)
        if failures:
            inner = min(failures.values(), key=lambda failure: "onnection" in str(failure))
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no message'}"


def _train_worker(request: dict[str, Any]) -> None:
    """The loop of one Ray Train worker."""
    ray_checkpoint = get_checkpoint()
    context, progress = get_context(), request["progress"]
    if progress is not None and context.get_world_rank() == 0:
        resumed = ray_checkpoint is not None
        progress.push_start.remote(context.get_world_size(), resumed=resumed)

    def report_epoch(metrics: dict[str, Any], folder: Path | None) -> None:
        report(metrics, checkpoint=Checkpoint(str(folder)) if folder is not None else None)

    with (
        tempfile.TemporaryDirectory(prefix="ssd_dist_") as scratch,
        resumed_from(ray_checkpoint, request["resume"]) as resume,
    ):
        train_and_report(
            from_mapping(request["config"]),
            request["data"],
            report_epoch,
            device_type=request["device_type"],
            scratch=Path(scratch),
            resume=resume,
            progress=progress,
        )
