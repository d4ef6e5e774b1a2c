"""What runs inside a Ray worker: one process's part of a training."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import Config
from ssd_dist.distributed.memory import memory_error, ran_out_of_memory
from ssd_dist.distributed.progress_board import ProgressBoard
from ssd_dist.distributed.safeguards import Guard, Safeguards, guarded
from ssd_dist.divergence import NonFiniteLossError
from ssd_dist.engine import Worker
from ssd_dist.evaluation.contact_sheet import CONTACT_SHEET, draw_contact_sheet
from ssd_dist.interruption import TrainingInterruptedError
from ssd_dist.training import EpochReport, train

_PROGRESS_INTERVAL_S = 0.5

Report = Callable[[dict[str, Any], Path | None, Callable[[], None]], None]


class WorkerEndedError(RuntimeError):
    """A worker was asked to end; the training can go on from what it stored."""


def this_worker(device_type: str) -> Worker:
    """This process as torch sees it: its rank, the group's size, its device.

    `device_type` is what was reserved for it, `cuda` or `cpu`; a GPU that is merely there is not
    its own. Takes the threads that Ray granted: one a CPU core, as more processes of one thread
    train faster than fewer with more.
    """
    keep_freed_memory()
    granted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    torch.set_num_threads(max(1, int(granted)) if granted.isdecimal() else 1)  # as OpenMP reads it
    # Gradients of 1x1 and depthwise weights differ in the strides of their sides of length 1 only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    device = torch.device(device_type)
    if not dist.is_initialized():
        return Worker(device=device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    return Worker(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def train_and_report(
    config: Config,
    data: str,
    report: Report,
    *,
    device_type: str,
    scratch: Path,
    resume: Path | None,
    safeguards: Safeguards,
    progress: ProgressBoard | None = None,
) -> None:
    """Trains and hands each epoch's metrics and checkpoint to `report`.

    Args:
        config: the whole configuration.
        data: a data set, as `open_split` takes it.
        report: takes the metrics; the folder of the checkpoint, None on all workers but the first,
            which it has stored when it returns; and what to call while it waits for the storage. A
            training that diverges ends with a last report that says why, under the key `diverged`.
        device_type: `cuda` or `cpu`.
        scratch: where a checkpoint is written before it is stored; on a local disk.
        resume: the checkpoint to go on from.
        safeguards: what this worker is guarded by.
        progress: where the first worker tells how far it is.

    Raises WorkerEndedError if it was about to be ended, and has stored its state;
    WorkerMemoryError, in one sentence, if it ran out of memory.
    """
    worker = this_worker(device_type)
    with guarded(safeguards, worker) as guard:
        _train_guarded(config, data, report, worker, guard, scratch, resume, progress)


def _train_guarded(
    config: Config,
    data: str,
    report: Report,
    worker: Worker,
    guard: Guard,
    scratch: Path,
    resume: Path | None,
    progress: ProgressBoard | None,
) -> None:
    def on_epoch(epoch: EpochReport) -> None:
        if worker.rank > 0:
            report(epoch.metrics, None, guard.waiting)
            guard.stored()
            return
        if progress is not None:
            progress.push_epoch(epoch.metrics)
        folder = scratch / f"epoch_{int(epoch.metrics['epoch']):04d}"
        epoch.save(folder)
        draw_pictures(epoch, folder)
        report(epoch.metrics, folder, guard.waiting)
        guard.stored()
        shutil.rmtree(folder, ignore_errors=True)

    board = progress if worker.rank == 0 else None
    try:
        train(
            config,
            data,
            worker,
            on_epoch,
            resume=resume,
            on_step=_throttled(board) if board is not None else None,
            tell=board.push_note if board is not None else None,
            check_in=guard.check_in,
        )
    except TrainingInterruptedError as interrupted:
        guard.keep(interrupted, scratch)
        raise WorkerEndedError(f"its worker was to end, and {interrupted}") from None
    except NonFiniteLossError as error:
        # Every worker sees the same gradient, so all end here together. A report and not an error:
        # Ray would take the worker for lost and start the training again.
        if board is not None:
            board.push_divergence(str(error))
        report({"diverged": str(error), "map_11pt": 0.0, "epoch": 0}, None, guard.waiting)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise memory_error(error, config, worker) from None


def draw_pictures(epoch: EpochReport, folder: Path) -> None:
    """Draws a few validation pictures into the checkpoint `folder` of an epoch that is the best so
    far, from detections that are there anyway; nothing for any other epoch."""
    validation, metrics = epoch.validation, epoch.metrics
    if validation is None or metrics["map_11pt"] < metrics["best_map_11pt"]:
        return
    dataset = validation.dataset
    draw_contact_sheet(
        folder / CONTACT_SHEET,
        f"epoch {int(metrics['epoch'])}, validation mAP {metrics['map_11pt']:.4f}: left what is "
        "there (dashed), right what was found (solid), mistakes shaded",
        dataset.split.annotations,
        validation.detections,
        validation.result,
        # From the cache: the files themselves may be gone, or far away.
        lambda index: dataset.cache.image(index).permute(1, 2, 0).numpy(),
    )


def _throttled(progress: ProgressBoard) -> Callable[[int, int], None]:
    last = 0.0

    def on_step(step: int, num_steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_INTERVAL_S or step == num_steps:
            last = now
            progress.push_step(step, num_steps)

    return on_step
