"""The validation of an epoch: every picture once over all workers, 11-point mAP on the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from ssd_dist.config import Config
from ssd_dist.data.dataset import DetectionDataset, Loader, evaluation_keys
from ssd_dist.engine import Worker, predict
from ssd_dist.evaluation.voc_ap import VocResult, evaluate_voc
from ssd_dist.interruption import EpochPart, interruptible
from ssd_dist.structures import Detections

_BATCH_SIZE = {"cpu": 4, "cuda": 16}
"""Pictures that meet the network together, by device. More are no faster on a CPU, and the memory
for them stays with the process: 4 fit into what a training step of SSDLite320 has taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """What an epoch's network found in the validation split."""

    dataset: DetectionDataset
    detections: Sequence[Detections]
    """Of every picture, in the split's order."""
    result: VocResult


def validate(
    model: Any,  # an average of the weights is no SSD to the type checker
    loader: Loader,
    config: Config,
    worker: Worker,
    part: EpochPart,
    check_in: Callable[[], bool],
) -> Validation | None:
    """Validates with all workers; the outcome on worker 0, None on the others.

    Args:
        model: the network to be looked at.
        loader: of the validation split.
        config: post-processing, precision.
        worker: this process among the others.
        part: the epoch that is validated.
        check_in: called before each batch; True asks worker 0 to stop, the others go on.

    Raises EpochInterruptedError if it was asked to stop.
    """
    dataset = loader.dataset
    keys = evaluation_keys(
        dataset,
        batch_size=_BATCH_SIZE[worker.device.type],
        rank=worker.rank,
        world_size=worker.world_size,
    )
    checked = interruptible(loader.batches(keys), check_in, part, may_stop=worker.rank == 0)
    detections = predict(model, checked, dataset.split.annotations, config, worker.device)
    if worker.world_size > 1:
        gathered: list[list[Detections] | None] = [None] * worker.world_size
        dist.all_gather_object(gathered, detections)
        detections = [one for part in gathered for one in part or []]
    if worker.rank > 0:
        return None
    # In the split's order, whatever the workers' number: of equal scores the first ranks first.
    place = {annotation.image_id: i for i, annotation in enumerate(dataset.split.annotations)}
    detections.sort(key=lambda found: place[found.image_id])
    result = evaluate_voc(dataset.split.annotations, detections, dataset.split.class_names)
    return Validation(dataset, detections, result)


def accuracy(result: VocResult, earlier: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """An epoch's accuracy as metrics, `earlier` being those of the epochs before."""
    best = max([result.map_11pt, *(epoch["map_11pt"] for epoch in earlier)])
    per_class = {f"ap_11pt/{name}": ap for name, ap in result.ap_11pt.items() if ap is not None}
    return {"map_11pt": result.map_11pt, "best_map_11pt": best, **per_class}
