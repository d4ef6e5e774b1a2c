"""Pictures through Ray Data to detections: every picture once, the same bits however spread.

Pictures are decoded where cores are free, travel in batches, and meet the network on one worker a
GPU, or one a CPU core where there is no GPU. The last bits of a convolution depend on the shape of
its input, and may depend on where in it a picture stands (the kernels sum in another order). So
every call of the network has the same shape, and a picture has its own place in it, given by its
position among all: neither the number of workers nor the batch size can change a detection.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
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
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.failures import root_cause
from ssd_dist.engine import detect_in, place
from ssd_dist.model.restored import restored
from ssd_dist.model.ssd import SSD
from ssd_dist.terminal import JobFailedError

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


def stream_detections(
    make_rows: Callable[[], ray.data.Dataset],
    decode: Callable[[Batch], Batch],
    checkpoint: Checkpoint,
    cluster: Cluster,
    *,
    num_workers: int,
    batch_size: int,
    then: Callable[[pa.Table], pa.Table] | None = None,
) -> Generator[pa.Table]:
    """Tables of a few rows each, in any order, as the workers finish them.

    Memory stays bounded: a few batches for each worker are on their way at a time, however many
    rows there are. Until the iterator is closed, what Ray's core writes to standard error is lost.

    Args:
        make_rows: makes the data set of the pictures, with an int column `position`, which no two
            rows share, and in blocks of about `batch_size` rows.
        decode: adds `image` (B, 3, S, S) uint8 to a batch of rows.
        checkpoint: the detector.
        cluster: where it runs, already connected.
        num_workers: processes that hold the network, 1 to `cluster.num_slots()`.
        batch_size: pictures that a worker takes at a time.
        then: gives back every table with its detections, having done something; on any node.

    Yields tables of the rows' columns, without `image`, and for each row the lists `boxes_xyxy`
    (4 N numbers, relative), `labels` (N) and `scores` (N).

    Raises:
        ValueError, OSError: as a worker raised it, in one sentence.
        RuntimeError: for what else a worker raised.
        ray.exceptions.RayError: workers were lost.
    """
    on_gpu = cluster.num_gpus > 0
    # Decoding has the cores that no worker holds. If there are none, the workers do that as well.
    num_decoders = cluster.num_cpus - (0 if on_gpu else num_workers)
    waiting = 2 * num_decoders + 4 * num_workers
    batch_bytes = batch_size * 3 * checkpoint.config.model.image_size**2
    _configure(batch_bytes, max_bytes=max(_LEAST_BYTES, waiting * batch_bytes))
    with _quiet_core():
        stream = make_rows()
        if num_decoders > 0:
            stream = stream.map_batches(
                decode,
                batch_size=batch_size,
                compute=TaskPoolStrategy(num_decoders),
                num_cpus=1,
            )
        stream = stream.map_batches(
            _Detector,
            fn_constructor_args=(Shared(checkpoint), cluster.device),
            fn_constructor_kwargs={"decode": None if num_decoders > 0 else decode},
            batch_size=batch_size,
            compute=ActorPoolStrategy(size=num_workers, max_tasks_in_flight_per_actor=2),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else None,
            max_restarts=MAX_WORKER_FAILURES,
            max_task_retries=MAX_WORKER_FAILURES,
        )
        if then is not None:
            # Beside the workers: they may hold every core.
            stream = stream.map_batches(
                then,
                batch_size=None,
                batch_format="pyarrow",
                compute=TaskPoolStrategy(max(1, num_decoders)),
                num_cpus=0,
            )
        results = stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        try:
            yield from results
        except ray.exceptions.RayTaskError as error:
            # Behind the first line stands Ray Data's advice on retrying.
            sentence = str(error.cause).partition("\n")[0]
            if isinstance(error.cause, ValueError | OSError):
                raise type(error.cause)(sentence) from None
            raise RuntimeError(f"{type(error.cause).__name__}: {sentence}") from error


@contextlib.contextmanager
def told_failures(what: str = "prediction") -> Iterator[None]:
    """Turns what is no mistake of the user's into a JobFailedError."""
    try:
        yield
    except RuntimeError as error:
        raise JobFailedError(f"the {what} failed: {error}") from error
    except ray.exceptions.RayError as error:
        error.__cause__ = None  # Ray Data's own mark, which says nothing
        cause = root_cause(error, less_memory="lower --batch-size or the number of workers")
        raise JobFailedError(f"the {what} failed: {cause}") from error


def detect_in_slots(
    model: SSD, images: Tensor, positions: Sequence[int], config: Config
) -> list[Found]:
    """Detections of pictures, each a function of its pixels and its position alone.

    Position p stands in slot p mod K of a call of K pictures. Slots without a picture hold zeros:
    in a network in eval mode no picture enters the sums of another.

    Args:
        model: in eval mode.
        images: (B, 3, S, S) uint8, on the model's device, whose type gives K.
        positions: of the B pictures among all, no two the same.
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


class Shared:
    """Something large that tasks and actors need: stored once, fetched once by each process."""

    def __init__(self, content: Any) -> None:
        self._reference = ray.put(content)

    def get(self) -> Any:
        """The content."""
        return _fetch(self._reference)


@functools.lru_cache(maxsize=1)
def _fetch(reference: Any) -> Any:
    return ray.get(reference)


class _Detector:
    """A worker: holds the network, takes batches of pictures, or decodes them first."""

    def __init__(
        self, checkpoint: Shared, device_type: str, *, decode: Callable[[Batch], Batch] | None
    ) -> None:
        keep_freed_memory()
        torch.set_num_threads(1)  # as in training; another number can change the last bits
        loaded: Checkpoint = checkpoint.get()
        self._config, self._decode = loaded.config, decode
        self._device = torch.device(device_type)
        self._model = place(restored(loaded), loaded.config, self._device)

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
                **{name: values for name, values in batch.items() if name != "image"},
                "boxes_xyxy": _lists(4 * ends, torch.cat(boxes).flatten()),
                "labels": _lists(ends, torch.cat(labels)),
                "scores": _lists(ends, torch.cat(scores)),
            }
        )


def _lists(ends: np.ndarray, values: Tensor) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.numpy()))


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


def _configure(batch_bytes: int, max_bytes: int) -> None:
    """Bounds what waits in the object store, and makes a block of every decoded batch."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # Without it Ray Data would gather whatever comes out of one task, such as a whole listing.
    context.target_max_block_size = batch_bytes
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(object_store_memory=max_bytes)
    )
