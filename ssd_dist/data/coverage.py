"""Which objects the priors of a model can match, by size and by class.

An object without a prior of IoU >= 0.5 is not lost: it still takes its best prior (see
`ops/matching.py`). But it has that one alone, and asks more of its regression; where many objects
are so, other prior sizes or a larger input help. Objects are taken as their pictures stand, without
augmentation; difficult ones, which are no targets, are left out.

Shapes: N objects of all pictures, P priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ssd_dist.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd_dist.structures import Annotation

COCO_SIDES = (32, 96)
"""Sides of a square, in pixels of the picture: COCO calls an object small below the first and large
from the second on, by its area."""
_FINEST_SIDE = 8
_PAIRS_AT_ONCE = 2**23
"""IoUs in memory at a time: 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """How well priors fit objects: a column for each of their properties."""

    best_iou: np.ndarray
    """(N,) float32: IoU of each object with the prior that fits it best."""
    picture_side: np.ndarray
    """(N,) float64: side of a square of its area, in pixels of its picture."""
    input_side: np.ndarray
    """(N,) float64: the same in pixels of the network's input, to which a picture is squeezed."""
    labels: np.ndarray
    """(N,) int64, 1…C."""
    pictures: np.ndarray
    """(N,) int64: position of its picture among the annotations."""
    objects: np.ndarray
    """(N,) int64: position of the object in its picture."""
    iou_threshold: float
    """From which IoU on a prior is positive."""
    num_priors: int
    image_size: int
    """Side of the network's input in pixels."""

    @property
    def unmatched(self) -> np.ndarray:
        """(N,) bool: no prior reaches the threshold."""
        result: np.ndarray = self.best_iou < self.iou_threshold
        return result


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """The objects of one size or class."""

    name: str
    num_objects: int
    num_unmatched: int
    mean_best_iou: float | None
    """None without objects."""


def measure_coverage(
    annotations: Sequence[Annotation],
    priors_cxcywh: Tensor,
    *,
    image_size: int,
    iou_threshold: float = 0.5,
) -> Coverage:
    """The fit of priors to the objects of pictures.

    Args:
        annotations: with the pictures' sizes, which must be known.
        priors_cxcywh: (P, 4), relative, P >= 1, as `SSD.priors_cxcywh`.
        image_size: side of the network's input in pixels.
        iou_threshold: from which a prior is positive (`loss.iou_threshold`).
    """
    boxes, sides, labels, pictures, objects = [], [], [], [], []
    for i, annotation in enumerate(annotations):
        counted = np.flatnonzero(~annotation.difficult)
        boxes.append(annotation.boxes_xyxy[counted].astype(np.float64))
        sides.append(np.tile([annotation.width, annotation.height], (len(counted), 1)))
        labels.append(annotation.labels[counted])
        pictures.append(np.full(len(counted), i))
        objects.append(counted)
    boxes_xyxy = np.concatenate([np.zeros((0, 4)), *boxes])
    picture_sides = np.concatenate([np.zeros((0, 2)), *sides])
    wh = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    relative_xyxy = torch.from_numpy(boxes_xyxy / np.tile(picture_sides, 2)).float()
    none = np.zeros(0, dtype=np.int64)
    return Coverage(
        best_iou=best_prior_iou(relative_xyxy, priors_cxcywh).numpy(),
        picture_side=np.sqrt(wh.prod(axis=1)),
        input_side=np.sqrt((wh / picture_sides).prod(axis=1)) * image_size,
        labels=np.concatenate([none, *labels]),
        pictures=np.concatenate([none, *pictures]),
        objects=np.concatenate([none, *objects]),
        iou_threshold=iou_threshold,
        num_priors=len(priors_cxcywh),
        image_size=image_size,
    )


def best_prior_iou(boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
    """IoU of each box with the prior that fits it best: (N, 4) and (P, 4), both relative → (N,)."""
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh.float())
    rows = max(1, _PAIRS_AT_ONCE // len(priors_xyxy))
    parts = [pairwise_iou(part, priors_xyxy).amax(dim=1) for part in boxes_xyxy.split(rows)]
    return torch.cat(parts) if parts else boxes_xyxy.new_zeros(0)


def by_coco_size(coverage: Coverage) -> list[CoverageRow]:
    """Small, medium and large objects, by their pixels in the picture, and all of them."""
    low, high = COCO_SIDES
    size = np.digitize(coverage.picture_side, COCO_SIDES)
    names = (f"small (below {low}² px)", "medium", f"large ({high}² px or more)")
    rows = [_row(coverage, name, size == i) for i, name in enumerate(names)]
    return [*rows, _row(coverage, "all", np.ones(len(size), dtype=bool))]


def by_input_side(coverage: Coverage) -> list[CoverageRow]:
    """Classes of size at the network's input, each twice as large as the one before it."""
    edges = [_FINEST_SIDE]
    while edges[-1] * 2 < coverage.image_size:
        edges.append(edges[-1] * 2)
    size = np.digitize(coverage.input_side, edges)
    names = [
        f"below {edges[0]} px",
        *(f"{low} to {high} px" for low, high in pairwise(edges)),
        f"{edges[-1]} px or more",
    ]
    return [_row(coverage, name, size == i) for i, name in enumerate(names)]


def by_class(coverage: Coverage, class_names: Sequence[str]) -> list[CoverageRow]:
    """Each class, in the order of the labels."""
    return [
        _row(coverage, name, coverage.labels == label)
        for label, name in enumerate(class_names, start=1)
    ]


def _row(coverage: Coverage, name: str, chosen: np.ndarray) -> CoverageRow:
    count = int(chosen.sum())
    return CoverageRow(
        name=name,
        num_objects=count,
        num_unmatched=int(coverage.unmatched[chosen].sum()),
        mean_best_iou=float(coverage.best_iou[chosen].mean()) if count else None,
    )


def coverage_json(
    coverage: Coverage, class_names: Sequence[str], picture_names: Sequence[str]
) -> dict[str, object]:
    """The tables, and every object that no prior can match.

    Args:
        coverage: what was measured.
        class_names: name of label i + 1 at position i.
        picture_names: of the annotations that were measured.
    """
    return {
        "num_priors": coverage.num_priors,
        "image_size": coverage.image_size,
        "iou_threshold": coverage.iou_threshold,
        "by_coco_size": [asdict(row) for row in by_coco_size(coverage)],
        "by_input_side": [asdict(row) for row in by_input_side(coverage)],
        "by_class": [asdict(row) for row in by_class(coverage, class_names)],
        "unmatched": [
            {
                "picture": picture_names[coverage.pictures[i]],
                "object": int(coverage.objects[i]),
                "class": class_names[coverage.labels[i] - 1],
                "picture_side": float(coverage.picture_side[i]),
                "input_side": float(coverage.input_side[i]),
                "best_iou": float(coverage.best_iou[i]),
            }
            for i in np.flatnonzero(coverage.unmatched)
        ],
    }
