"""Prediction of pictures that belong to no data set: files, folders, videos, however many.

The pictures are listed into a record (see prediction_record.py); a Ray Data stream draws them from
there a batch at a time, and what the workers find goes back in. So memory is the same for ten
pictures and for ten million, and a prediction that was cut off goes on where it was.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.data.single import network_input, read_upright
from ssd_dist.data.video import read_frames
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.prediction_listing import MISNAMED, PICTURE
from ssd_dist.distributed.prediction_record import Record, planned
from ssd_dist.distributed.prediction_stream import Batch, stream_detections
from ssd_dist.evaluation.drawing import annotated
from ssd_dist.structures import Detections

_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Where and how annotated pictures are written."""

    folder: Path
    """Every node must see it."""
    class_names: tuple[str, ...]
    score_threshold: float


def predict_pictures(
    record: Record,
    checkpoint: Checkpoint,
    cluster: Cluster,
    *,
    num_workers: int,
    batch_size: int,
    score_threshold: float,
    drawing: Drawing | None,
) -> Iterator[list[str]]:
    """Predicts what is left to do of a record, and adds what was found to it.

    Args:
        record: planned; on this machine's disk. Every node must see the pictures.
        checkpoint: the detector.
        cluster: where it runs, already connected.
        num_workers: processes that hold the network, 1 to `cluster.num_slots()`.
        batch_size: pictures that a worker takes at a time. As in an evaluation, neither number
            changes a detection.
        score_threshold: detections below it are left out.
        drawing: annotated pictures are written as well.

    Yields, after each batch that was added, why pictures in it can't be read. Raises as
    `stream_detections` does, and OSError if the record can't be written.
    """
    size = checkpoint.config.model.image_size
    tables = stream_detections(
        functools.partial(_rows, record.path, batch_size, 3 * size**2),
        functools.partial(_decode, size=size),
        checkpoint,
        cluster,
        num_workers=num_workers,
        batch_size=batch_size,
        then=None if drawing is None else functools.partial(_draw, drawing=drawing),
    )
    with contextlib.closing(tables):
        for table in tables:
            columns = ("position", "width", "height", "boxes_xyxy", "labels", "scores", "problem")
            rows = list(_found(zip(*(table[name] for name in columns), strict=True)))
            record.add(
                (*row[:3], *_above(score_threshold, *row[3:6]), row[6] or None) for row in rows
            )
            yield [row[6] for row in rows if row[6]]


class _Listing(Datasource):
    """What is left to do of a record, read by one task, on the machine where the record lies."""

    def __init__(self, path: Path, batch_size: int, picture_bytes: int) -> None:
        super().__init__()
        self._read = functools.partial(_tables, path, batch_size, picture_bytes)

    @property
    def supports_distributed_reads(self) -> bool:
        return False

    def estimate_inmemory_data_size(self) -> None:
        return None

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        return [ReadTask(self._read, BlockMetadata(None, None, None, None))]


def _tables(path: Path, batch_size: int, picture_bytes: int) -> Iterator[pa.Table]:
    """A table for each batch, as heavy as its pictures will be.

    Ray Data cuts what a task yields into blocks by their bytes alone, and bounds by them what is on
    its way: so a block is a batch, and the listing never runs ahead of the workers.
    """
    for rows in planned(path, batch_size):
        columns = dict(
            zip(("position", "image_id", "path", "time"), zip(*rows, strict=True), strict=True)
        )
        weight = pa.py_buffer(bytes(len(rows) * picture_bytes))
        yield pa.table(
            {
                **{name: pa.array(values) for name, values in columns.items()},
                "image": pa.Array.from_buffers(pa.binary(picture_bytes), len(rows), [None, weight]),
            }
        )


def _rows(path: Path, batch_size: int, picture_bytes: int) -> ray.data.Dataset:
    listing = _Listing(path, batch_size, picture_bytes)
    return ray.data.read_datasource(listing, num_cpus=0, override_num_blocks=1)


def _decode(batch: Batch, *, size: int) -> Batch:
    """Puts in `image` (B, 3, S, S) uint8, and adds the `width` and `height` of each picture, and
    `problem`: why it can't be read, and its image is zeros; else empty."""
    count = len(batch["position"])
    images = np.zeros((count, 3, size, size), np.uint8)
    sizes = np.zeros((2, count), np.int64)
    problems = [f"{path}: a frame of it is damaged or cut off" for path in batch["path"]]
    for row, picture in _pictures(batch):
        if isinstance(picture, str):
            problems[row] = picture
            continue
        problems[row] = ""
        sizes[:, row] = picture.shape[1], picture.shape[0]
        images[row] = network_input(picture, size).numpy()
    return {
        **batch,
        "image": images,
        "width": sizes[0],
        "height": sizes[1],
        "problem": np.array(problems, dtype=object),
    }


def _pictures(batch: Batch) -> Iterator[tuple[int, np.ndarray | str]]:
    """(row, picture or why it can't be read); of a video, a frame that can't be is left out."""
    frames: dict[str, dict[int, int]] = {}
    for row, (path, at) in enumerate(zip(batch["path"], batch["time"], strict=True)):
        if at == MISNAMED:
            yield row, f"{path}: its name is not UTF-8: rename it, and predict it anew"
            continue
        if at != PICTURE:
            frames.setdefault(str(path), {})[int(at)] = row
            continue
        try:
            yield row, read_upright(Path(path))
        except (ValueError, OSError) as error:
            yield row, str(error)
    for path, rows in frames.items():
        left = set(rows.values())
        try:
            for at, picture in read_frames(Path(path), list(rows)):
                left.discard(rows[at])
                yield rows[at], picture
        except (ValueError, OSError) as error:
            for row in left:  # those before the place that can't be read are as good as ever
                yield row, str(error)


def _draw(table: pa.Table, *, drawing: Drawing) -> pa.Table:
    """Writes the annotated pictures of a batch that has its detections; gives it back as it is."""
    names = ("image_id", "path", "time", "boxes_xyxy", "labels", "scores", "problem")
    batch = {name: table[name].to_numpy() for name in names}
    readable = [row for row, problem in enumerate(batch["problem"]) if not problem]
    for row, picture in _pictures({n: values[readable] for n, values in batch.items()}):
        if isinstance(picture, str):  # gone meanwhile
            continue
        one = readable[row]
        boxes, labels, scores = (batch[n][one] for n in ("boxes_xyxy", "labels", "scores"))
        boxes_xyxy = boxes.reshape(-1, 4) * np.array([*picture.shape[1::-1]] * 2, np.float32)
        image_id = str(batch["image_id"][one])
        found = Detections(image_id, *_above(drawing.score_threshold, boxes_xyxy, labels, scores))
        # An image id may be a path.
        target = drawing.folder / f"{image_id.lstrip('/')}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            annotated(picture, found, drawing.class_names).save(
                scratch, format="JPEG", quality=_JPEG_QUALITY
            )
            scratch.rename(target)
        finally:
            scratch.unlink(missing_ok=True)
    return table


def _found(rows: Iterable[Sequence[pa.Scalar]]) -> Iterator[tuple]:
    """Arrow's values as Python's and numpy's, boxes in pixels."""
    for position, width, height, boxes, labels, scores, problem in rows:
        sides = np.array([width.as_py(), height.as_py()] * 2, dtype=np.float32)
        yield (
            position.as_py(),
            width.as_py(),
            height.as_py(),
            boxes.values.to_numpy().reshape(-1, 4) * sides,
            labels.values.to_numpy(),
            scores.values.to_numpy(),
            problem.as_py(),
        )


def _above(
    score_threshold: float, boxes_xyxy: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detections of a picture from a threshold on."""
    kept = scores >= score_threshold
    return boxes_xyxy[kept], labels[kept], scores[kept]
