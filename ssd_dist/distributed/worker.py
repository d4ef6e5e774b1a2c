"""What runs inside a Ray worker: one process's part of a training."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssd_dist.config import Config
from ssd_dist.engine import Worker
from ssd_dist.training import EpochReport, train

_PROGRESS_INTERVAL_S = 0.5


def this_worker() -> Worker:
    """This process as torch sees it: its rank, the group's size, its device.

    Takes the threads that Ray granted: one a CPU core, as more processes of one thread train
    faster than fewer with more.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Gradients of 1x1 and depthwise weights differ in the strides of their sides of length 1 only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not dist.is_initialized():
        return Worker(device=device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    return Worker(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def train_and_report(
    config: Config,
    data: str,
    report: Callable[[dict[str, Any], Path | None], None],
    *,
    scratch: Path,
    resume: Path | None,
    progress: Any = None,
) -> None:
    """Trains and hands each epoch's metrics and checkpoint to `report`.

    Args:
        config: the whole configuration.
        data: a VOC root, or `synthetic`.
        report: takes the metrics and the folder of the checkpoint, None on all workers but the
            first; it has stored the folder when it returns.
        scratch: where a checkpoint is written before it is stored; on a local disk.
        resume: the checkpoint to go on from.
        progress: handle of a Progress actor.
    """
    worker = this_worker()

    def on_epoch(epoch: EpochReport) -> None:
        if worker.rank > 0:
            report(epoch.metrics, None)
            return
        if progress is not None:
            progress.push_epoch.remote(epoch.metrics)
        folder = scratch / f"epoch_{int(epoch.metrics['epoch']):04d}"
        epoch.save(folder)
        report(epoch.metrics, folder)

    train(
        config,
        data,
        worker,
        on_epoch,
        resume=resume,
        on_step=_throttled(progress) if progress is not None and worker.rank == 0 else None,
    )


def _throttled(progress: Any) -> Callable[[int, int], None]:
    last = 0.0

    def on_step(step: int, num_steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_INTERVAL_S or step == num_steps:
            last = now
            progress.push_step.remote(step, num_steps)

    return on_step
