"""Prediction over the cluster with Ray Data: every picture once, the same bits however spread.

Pictures are decoded where cores are free, travel in batches, and meet the network on one worker a
GPU, or one a CPU core where there is no GPU. The last bits of a convolution depend on the shape of
its input, and may depend on where in it a picture stands (the kernels sum in another order). So
every call of the network has the same shape, and a picture has its own place in it, given by its
position in the split: neither the number of workers nor the batch size can change a detection.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import (
    ActorPoolStrategy,
    DataContext,
    ExecutionOptions,
    ExecutionResources,
    TaskPoolStrategy,
)
from torch import Tensor

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import Config
from ssd_dist.data.cache import _read_shrunk, _shrunk_size
from ssd_dist.data.transforms import resize_only
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.engine import detect_in, place
from ssd_dist.model.ssd import SSD, build_model
from ssd_dist.structures import Annotation, Detections, Split

NUM_SLOTS = {"cpu": 4, "cuda": 16}
"""Pictures in every call of the network."""

MAX_WORKER_FAILURES = 3
"""Times that a lost worker is started again, and its batch predicted anew."""

_LEAST_BYTES = 32 * 2**20
"""What decoded pictures may take in Ray's object store in any case."""

Batch = dict[str, np.ndarray]
"""B rows as Ray Data hands them over: name of the column → its values."""

Found = tuple[Tensor, Tensor, Tensor]
"""Relative boxes (N, 4), labels (N,) and scores (N,) of one picture."""


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

    Memory stays bounded: a few batches for each worker are on their way at a time, whatever the
    size of the split.

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
    size = checkpoint.config.model.image_size
    batches = [
        pa.table({"position": np.arange(first, min(first + batch_size, count))})
        for first in range(0, count, batch_size)
    ]
    on_gpu = cluster.num_gpus > 0
    decode = functools.partial(_decode, split=_Shared(split), size=size)
    # Decoding has the cores that no worker holds. If there are none, the workers do that as well.
    num_decoders = cluster.num_cpus - (0 if on_gpu else num_workers)
    waiting = 2 * num_decoders + 4 * num_workers
    _configure(max_bytes=max(_LEAST_BYTES, waiting * batch_size * 3 * size**2))
    with _quiet_core():
        stream: ray.data.Dataset = ray.data.from_arrow(batches)
        if num_decoders > 0:
            stream = stream.map_batches(
                decode,
                batch_size=batch_size,
                compute=TaskPoolStrategy(num_decoders),
                num_cpus=1,
            )
        stream = stream.map_batches(
            _Detector,
            fn_constructor_args=(_Shared(checkpoint), cluster.device),
            fn_constructor_kwargs={"decode": None if num_decoders > 0 else decode},
            batch_size=batch_size,
            compute=ActorPoolStrategy(size=num_workers, max_tasks_in_flight_per_actor=2),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else None,
            max_restarts=MAX_WORKER_FAILURES,
            max_task_retries=MAX_WORKER_FAILURES,
        )
        results = stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        try:
            return gather(_rows(results), split.annotations, on_progress)
        except ray.exceptions.RayTaskError as error:
            # Behind the first line stands Ray Data's advice on retrying.
            sentence = str(error.cause).partition("\n")[0]
            if isinstance(error.cause, ValueError | OSError):
                raise type(error.cause)(sentence) from None
            raise RuntimeError(f"{type(error.cause).__name__}: {sentence}") from error


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


def detect_in_slots(
    model: SSD, images: Tensor, positions: Sequence[int], config: Config
) -> list[Found]:
    """Detections of pictures, each a function of its pixels and its position alone.

    Position p stands in slot p mod K of a call of K pictures. Slots without a picture hold zeros:
    in a network in eval mode no picture enters the sums of another.

    Args:
        model: in eval mode.
        images: (B, 3, S, S) uint8, on the model's device, whose type gives K.
        positions: of the B pictures in their split, no two the same.
        config: for post-processing, precision and memory layout.

    Returns the relative boxes, labels and scores of each picture, on the CPU.
    """
    num_slots = NUM_SLOTS[images.device.type]
    calls: dict[int, list[int]] = {}
    for row, position in enumerate(positions):
        calls.setdefault(position // num_slots, []).append(row)
    found: dict[int, Found] = {}
    for rows in calls.values():
        slots = [positions[row] % num_slots for row in rows]
        call = images.new_zeros(num_slots, *images.shape[1:])
        call[slots] = images[rows]
        detections = detect_in(model, call, config)
        for row, slot in zip(rows, slots, strict=True):
            boxes_xyxy, labels, scores = detections[slot]
            found[row] = boxes_xyxy.cpu(), labels.cpu(), scores.cpu()
    return [found[row] for row in range(len(positions))]


def restore(checkpoint: Checkpoint) -> SSD:
    """The checkpoint's network, on the CPU, in eval mode."""
    model = build_model(checkpoint.config.model, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict(checkpoint.weights)
    return model.eval()


class _Shared:
    """Something large that the tasks need: stored once, fetched once by each process."""

    def __init__(self, content: Any) -> None:
        self._reference = ray.put(content)

    def get(self) -> Any:
        return _fetch(self._reference)


@functools.lru_cache(maxsize=1)
def _fetch(reference: Any) -> Any:
    return ray.get(reference)


def _decode(batch: Batch, *, split: _Shared, size: int) -> Batch:
    """`position` (B,) in the split → also `image` (B, 3, S, S) uint8."""
    images = [read_resized(split.get(), int(position), size) for position in batch["position"]]
    return {"position": batch["position"], "image": np.stack([image.numpy() for image in images])}


def read_resized(split: Split, index: int, size: int) -> Tensor:
    """Picture `index` as :class:`DetectionDataset` gives it for evaluation: (3, S, S) uint8."""
    sizes = {index: _shrunk_size(split.annotations[index], size)}
    picture = torch.tensor(_read_shrunk(split, sizes, index))  # type: ignore[arg-type]
    return resize_only(picture.permute(2, 0, 1), torch.empty(0, 4), size)[0]


class _Detector:
    """A worker: holds the network, takes batches of pictures, or decodes them first."""

    def __init__(
        self, checkpoint: _Shared, device_type: str, *, decode: Callable[[Batch], Batch] | None
    ) -> None:
        keep_freed_memory()
        torch.set_num_threads(1)  # as in training; another number can change the last bits
        loaded: Checkpoint = checkpoint.get()
        self._config, self._decode = loaded.config, decode
        self._device = torch.device(device_type)
        self._model = place(restore(loaded), loaded.config, self._device)

    def __call__(self, batch: Batch) -> pa.Table:
        if self._decode is not None:
            batch = self._decode(batch)
        found = detect_in_slots(
            self._model,
            torch.from_numpy(np.array(batch["image"])).to(self._device),
            batch["position"].tolist(),
            self._config,
        )
        boxes, labels, scores = zip(*found, strict=True)
        ends = np.cumsum([0, *map(len, labels)], dtype=np.int32)
        return pa.table(
            {
                "position": batch["position"],
                "boxes_xyxy": _lists(4 * ends, torch.cat(boxes).flatten()),
                "labels": _lists(ends, torch.cat(labels)),
                "scores": _lists(ends, torch.cat(scores)),
            }
        )


def _lists(ends: np.ndarray, values: Tensor) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.numpy()))


def _rows(tables: Iterable[pa.Table]) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The rows of what :class:`_Detector` made."""
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


@contextlib.contextmanager
def _quiet_core() -> Iterator[None]:
    """Keeps what Ray's core writes straight to descriptor 2 from the terminal meanwhile: a warning
    about every pool of actors. What fails comes back as an exception."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _configure(max_bytes: int) -> None:
    """Bounds what waits in the object store, and keeps batches whole."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.target_max_block_size = None
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(object_store_memory=max_bytes)
    )
