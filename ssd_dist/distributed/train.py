"""A data-parallel training with Ray Train."""

from __future__ import annotations

import tempfile
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
    report,
)
from ray.train.torch import TorchTrainer

from ssd_dist.config import Config, from_mapping, to_mapping
from ssd_dist.distributed.cluster import Cluster, check_fits, connect, silence, worker_resources
from ssd_dist.distributed.progress import follow_training, start_board
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
    num_workers: int | None = None,
    resume: bool = False,
) -> TrainingOutcome:
    """Trains on the cluster; the experiment's `folder` then holds best.json and the checkpoints.

    Args:
        config: the whole configuration.
        data: a VOC root, or `synthetic`.
        folder: the experiment's, absolute; must not hold one already, unless `resume`.
        terminal: where progress is shown.
        num_workers: None: one a GPU, or one a CPU core where there is no GPU.
        resume: go on from the last checkpoint.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: what was asked for can't be; nothing was
            started.
        JobFailedError: the training failed or diverged.
    """
    check_start(folder, "train", config, data, resume=resume)
    terminal.introduce(prepare(config, data))
    cluster = connect(terminal)
    if num_workers is None:
        num_workers = min(cluster.num_slots, config.global_batch_size)
    check_fits(cluster, config, num_trials=1, workers_per_trial=num_workers)
    terminal.line(f"training on {num_workers} {cluster.device} worker(s), in {shown(folder)}")
    start_experiment(folder, "train", config, data)

    board = start_board()
    trainer = build_trainer(
        config, data, folder, "ray", cluster, num_workers=num_workers, progress=board
    )
    with follow_training(board, terminal, config.epochs), silence():
        try:
            result = trainer.fit()
        except Exception as error:
            raise JobFailedError(f"the training failed: {root_cause(error)}") from error
    if (reason := ray.get(board.divergence.remote())) is not None:
        raise JobFailedError(f"the training diverged: {reason}")
    kept = result.best_checkpoints or []
    best, metrics = max(kept, key=lambda pair: pair[1]["map_11pt"])
    path = finish_experiment(folder, config, metrics["map_11pt"], Path(best.path))
    return TrainingOutcome(folder, path, metrics["map_11pt"], int(metrics["epoch"]))


def build_trainer(
    config: Config,
    data: str,
    storage: Path,
    name: str,
    cluster: Cluster,
    *,
    num_workers: int,
    progress: Any = None,
    resume: str | None = None,
    callbacks: list[Any] | None = None,
) -> TorchTrainer:
    """The Ray Train run `storage/name`, not yet started. A run that was cut off goes on where it
    stopped."""
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
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=bool(cluster.num_gpus),
            resources_per_worker=worker_resources(cluster),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="map_11pt"
            ),
            callbacks=callbacks or [],
        ),
    )


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
    resume = ray_checkpoint.path if ray_checkpoint is not None else request["resume"]

    def report_epoch(metrics: dict[str, Any], folder: Path | None) -> None:
        report(metrics, checkpoint=Checkpoint(str(folder)) if folder is not None else None)

    with tempfile.TemporaryDirectory(prefix="ssd_dist_") as scratch:
        train_and_report(
            from_mapping(request["config"]),
            request["data"],
            report_epoch,
            device_type=request["device_type"],
            scratch=Path(scratch),
            resume=Path(resume) if resume is not None else None,
            progress=request["progress"],
        )
