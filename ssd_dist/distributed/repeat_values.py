"""The repeats of a search on another split than the one that chose among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.analysis.repeats import contestants
from ssd_dist.checkpoint import Checkpoint, load_checkpoint
from ssd_dist.distributed.buckets import is_directory, local_copy, shown_location
from ssd_dist.distributed.cluster import Cluster, worker_resources
from ssd_dist.distributed.predict import gather, read_resized
from ssd_dist.distributed.prediction_stream import (
    MAX_WORKER_FAILURES,
    NUM_SLOTS,
    detect_in_slots,
)
from ssd_dist.engine import place
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.experiment import TrialRecord
from ssd_dist.model.restored import restored
from ssd_dist.repeated import Repeated
from ssd_dist.structures import Detections, Split
from ssd_dist.terminal import Terminal


def with_split_values(
    repeats: Sequence[Repeated], split: Split, cluster: Cluster, terminal: Terminal
) -> list[Repeated]:
    """The search's best and the SSD paper's defaults with the mAP of each seed on a split.

    Each seed's best checkpoint is one task, and as many run at once as the cluster holds. A seed
    that diverged counts as 0. A configuration of which a checkpoint is gone is left as it is, and
    told.

    Args:
        repeats: every configuration that was trained again, best mean first.
        split: read by its paths, which every node must see.
        cluster: already connected.
        terminal: where progress is shown.

    Raises:
        ValueError, OSError: for a picture that can't be read.
        ray.exceptions.RayError: workers were lost.
    """
    compared = [one for one in contestants(repeats) if one is not None]
    for one in compared:
        gone = [run.checkpoint for run in _with_checkpoint(one) if not _is_there(run)]
        if gone:
            where = shown_location(str(gone[0]))
            terminal.line(f"note: {one.name} is not evaluated on {split.name}: {where} is gone")
    compared = [one for one in compared if all(map(_is_there, _with_checkpoint(one)))]
    runs = {id(run): run for one in compared for run in _with_checkpoint(one)}
    terminal.line(f"the repeats on {split.name}: {len(runs)} checkpoints")
    values = dict(zip(runs, _map_of_each([*runs.values()], split, cluster, terminal), strict=True))
    return [
        dataclasses.replace(
            one, split_values=tuple(values.get(id(run), 0.0) for run in one.measured)
        )
        if one in compared
        else one
        for one in repeats
    ]


def detect_alone(checkpoint: Checkpoint, split: Split, device_type: str) -> list[Detections]:
    """Detections of every picture of a split by this process: the same bits as those of
    :func:`ssd_dist.distributed.predict.predict_on_cluster`."""
    device = torch.device(device_type)
    model = place(restored(checkpoint), checkpoint.config, device)
    size, num_slots = checkpoint.config.model.image_size, NUM_SLOTS[device.type]
    rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for first in range(0, len(split.annotations), num_slots):
        positions = range(first, min(first + num_slots, len(split.annotations)))
        images = torch.stack([read_resized(split, index, size) for index in positions])
        found = detect_in_slots(model, images.to(device), positions, checkpoint.config)
        rows += [
            (position, boxes_xyxy.numpy(), labels.numpy(), scores.numpy())
            for position, (boxes_xyxy, labels, scores) in zip(positions, found, strict=True)
        ]
    return gather(rows, split.annotations)


def _map_of_each(
    runs: Sequence[TrialRecord], split: Split, cluster: Cluster, terminal: Terminal
) -> list[float]:
    """11-point mAP of each run's checkpoint, in their order."""
    task = ray.remote(_map_on).options(
        num_cpus=1,
        num_gpus=worker_resources(cluster).get("GPU", 0),
        max_retries=MAX_WORKER_FAILURES,
    )
    shared = ray.put(split)
    # Read here, like the best checkpoint: workers need not see them.
    waiting = [task.remote(_checkpoint(run), shared, cluster.device) for run in runs]
    references = list(waiting)
    with terminal.bar("repeats"):
        while waiting:
            _, waiting = ray.wait(waiting)
            terminal.advance(len(runs) - len(waiting), len(runs))
    try:
        return ray.get(references)
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise type(error.cause)(str(error.cause).partition("\n")[0]) from None
        raise


def _map_on(checkpoint: Checkpoint, split: Split, device_type: str) -> float:
    """The task: one checkpoint on a whole split."""
    keep_freed_memory()
    torch.set_num_threads(1)  # as in training; another number can change the last bits
    detections = detect_alone(checkpoint, split, device_type)
    return evaluate_voc(split.annotations, detections, checkpoint.class_names).map_11pt


def _with_checkpoint(repeated: Repeated) -> list[TrialRecord]:
    return [run for run in repeated.measured if run.map_11pt is not None]


def _is_there(run: TrialRecord) -> bool:
    return run.checkpoint is not None and is_directory(run.checkpoint)


def _checkpoint(run: TrialRecord) -> Checkpoint:
    with local_copy(str(run.checkpoint)) as folder:
        return load_checkpoint(folder)
