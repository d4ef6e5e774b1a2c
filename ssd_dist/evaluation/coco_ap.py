"""COCO's twelve numbers (Lin et al. 2014), by faster-coco-eval.

Its numbers are those of pycocotools, the reference (a test holds all twelve to 1e-12), in a fifth
of the time.

Everything is handed over in memory: pictures, objects and detections are numbered from 1, because
COCO's programs take an object numbered 0 for no object at all.

What differs from COCO's own annotations, and cannot be otherwise with boxes only: an object's area,
which sorts it into small (up to 32² pixels), medium (up to 96²) or large, is that of its box, where
COCO takes that of its mask. `difficult` objects are handed over as crowds, the only objects that
they leave out of the recall *and* take any number of detections of (the `ignore` field
they overwrite with `iscrowd`). Other than in VOC's matching a detection then falls on a difficult
object if at least the threshold's share of the *detection* lies in it, and only if no other object
of its class is free for it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval import COCOeval_faster as COCOeval

from ssd_dist.evaluation.tables import (
    DetectionTable,
    ObjectTable,
    flatten_annotations,
    flatten_detections,
)
from ssd_dist.structures import Annotation, Detections

NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
"""What `coco_summary` gives, in COCO's own order. `AP` and all `AR` are means over the IoU
thresholds 0.50, 0.55, …, 0.95; `AR_1` looks at the first detection of each class and picture
only."""


def coco_summary(
    annotations: Sequence[Annotation], detections: Sequence[Detections], class_names: Sequence[str]
) -> dict[str, float | None]:
    """Name, one of `NAMES` → value, 0 to 1; None where no object is of that size.

    `class_names[i]` is the name of label i + 1. Pictures without detections may be left out. As in
    COCO at most the 100 highest-scoring detections of a class in a picture count (1 and 10 in
    `AR_1` and `AR_10`), so that the numbers stand beside published ones; a detector that gives at
    most 100 a picture loses none. Raises ValueError for what the tables refuse, naming picture and
    row.
    """
    num_classes = len(class_names)
    objects = flatten_annotations(annotations, num_classes)
    found = flatten_detections(detections, annotations, num_classes)
    images = [{"id": i} for i in range(1, len(annotations) + 1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress and a table
        evaluation = COCOeval(
            _coco(images, categories, _object_rows(objects)),
            _coco(images, categories, _detection_rows(found)),
            iouType="bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats]
    return {name: value if value >= 0 else None for name, value in zip(NAMES, values, strict=True)}


def _coco(
    images: list[dict[str, Any]], categories: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": rows}
    coco.createIndex()
    return coco


def _object_rows(objects: ObjectTable) -> list[dict[str, Any]]:
    rows = _rows(objects)
    for row, difficult in zip(rows, objects.difficult.tolist(), strict=True):
        row["iscrowd"] = int(difficult)
    return rows


def _detection_rows(detections: DetectionTable) -> list[dict[str, Any]]:
    rows = _rows(detections)
    for row, score in zip(rows, detections.scores.tolist(), strict=True):
        row["score"] = score
    return rows


def _rows(table: ObjectTable | DetectionTable) -> list[dict[str, Any]]:
    """What COCO's objects and detections have in common."""
    corner = table.boxes_xyxy[:, :2].astype(np.float64)
    size = table.boxes_xyxy[:, 2:] - corner
    columns = zip(
        (table.images + 1).tolist(),
        table.labels.tolist(),
        np.concatenate([corner, size], axis=1).tolist(),
        size.prod(axis=1).tolist(),
        strict=True,
    )
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box_xywh, "area": area}
        for i, (image, label, box_xywh, area) in enumerate(columns, start=1)
    ]
