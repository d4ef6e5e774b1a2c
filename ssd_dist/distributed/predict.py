"""Prediction of a split over the cluster: every picture once, in the split's order."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray.data
import torch
from torch import Tensor

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.data.cache import read_shrunk, shrunk_size
from ssd_dist.data.transforms import resize_only
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.prediction_stream import Batch, Shared, stream_detections
from ssd_dist.structures import Annotation, Detections, Split


def predict_on_cluster(
    checkpoint: Checkpoint,
    split: Split,
    cluster: Cluster,
    *,
    num_workers: int,
    batch_size: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[Detections]:
    """Detections of every picture of a split, in its order.

    Args:
        checkpoint: the detector; its classes are the split's.
        split: read by its paths, which every node must see.
        cluster: where it runs, already connected.
        num_workers: processes that hold the network, 1 to `cluster.num_slots()`.
        batch_size: pictures that a worker takes at a time.
        on_progress: called with the number of pictures done.

    Raises:
        ValueError, OSError: as a worker raised it, for a picture that can't be read.
        RuntimeError: for what else a worker raised; and, naming the picture, if one did not come
            back exactly once.
        ray.exceptions.RayError: workers were lost.
    """
    count = len(split.annotations)
    batches = [
        pa.table({"position": np.arange(first, min(first + batch_size, count))})
        for first in range(0, count, batch_size)
    ]
    tables = stream_detections(
        lambda: ray.data.from_arrow(batches),
        functools.partial(_decode, split=Shared(split), size=checkpoint.config.model.image_size),
        checkpoint,
        cluster,
        num_workers=num_workers,
        batch_size=batch_size,
    )
    with contextlib.closing(tables):
        return gather(_rows(tables), split.annotations, on_progress)


def gather(
    rows: Iterable[tuple[int, np.ndarray, np.ndarray, np.ndarray]],
    annotations: Sequence[Annotation],
    on_progress: Callable[[int], None] | None = None,
) -> list[Detections]:
    """Rows that come back in any order → detections in the split's order, in pixels.

    Args:
        rows: position in the split, relative boxes (N, 4), labels (N,), scores (N,).
        annotations: the split's, for sizes and names.
        on_progress: called with the number of pictures so far.

    Raises RuntimeError, naming the first such picture, if one came twice or not at all.
    """
    found: dict[int, Detections] = {}
    for position, boxes_xyxy, labels, scores in rows:
        annotation = annotations[position]
        if position in found:
            raise RuntimeError(f"picture {annotation.image_id!r} came back from the workers twice")
        sides = np.array([annotation.width, annotation.height] * 2, dtype=np.float32)
        found[position] = Detections(annotation.image_id, boxes_xyxy * sides, labels, scores)
        if on_progress is not None:
            on_progress(len(found))
    for position, annotation in enumerate(annotations):
        if position not in found:
            raise RuntimeError(f"picture {annotation.image_id!r} did not come back from a worker")
    return [found[position] for position in range(len(annotations))]


def read_resized(split: Split, index: int, size: int) -> Tensor:
    """Picture `index` as :class:`DetectionDataset` gives it for evaluation: (3, S, S) uint8."""
    annotation = split.annotations[index]
    sizes = {index: shrunk_size(annotation.width, annotation.height, size)}
    picture = torch.tensor(read_shrunk(split, sizes, index))
    return resize_only(picture.permute(2, 0, 1), torch.empty(0, 4), size)[0]


def _decode(batch: Batch, *, split: Shared, size: int) -> Batch:
    """`position` (B,) in the split → also `image` (B, 3, S, S) uint8."""
    images = [read_resized(split.get(), int(position), size) for position in batch["position"]]
    return {"position": batch["position"], "image": np.stack([image.numpy() for image in images])}


def _rows(tables: Iterable[pa.Table]) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The rows of what `stream_detections` yields."""
    for table in tables:
        columns = [table[name] for name in ("position", "boxes_xyxy", "labels", "scores")]
        for position, boxes_xyxy, labels, scores in zip(*columns, strict=True):
            yield (
                position.as_py(),
                # Copies: a view would keep Ray's object store from letting go of the batch.
                boxes_xyxy.values.to_numpy().reshape(-1, 4).copy(),
                labels.values.to_numpy().copy(),
                scores.values.to_numpy().copy(),
            )
