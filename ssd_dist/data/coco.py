"""Reads a COCO annotation file as the ground truth of an evaluation; its pictures are not opened.

Labels 1…C follow the order of the category ids. Crowd regions (`iscrowd`) stand for more objects
than they can be matched with, and become `difficult`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from ssd_dist.data.coco_json import read_coco_file
from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.problems import ProblemList
from ssd_dist.structures import Annotation


def read_coco(path: str | Path, problems: ProblemList | None = None) -> GroundTruth:
    """Reads an annotation file such as `instances_val2017.json`.

    An image id is a whole number or text; as `Annotation.image_id` both are text ("397133").

    What is wrong is told to `problems`, with its place in the file; None: a strict list. One that
    is not strict gathers what is refused, too, and the ground truth lacks it. See
    `read_coco_file`; a box without area is dropped.

    Raises FileNotFoundError if there is no such file, DataError (a ValueError) as `problems` does.
    """
    problems = ProblemList(strict=True) if problems is None else problems
    file = read_coco_file(path, problems)
    has_area = (file.boxes_xywh[:, 2:] > 0).all(axis=1)
    for i in np.flatnonzero(~has_area):
        box_xywh = file.boxes_xywh[i]
        kind = "box_swapped" if (box_xywh[2:] < 0).any() else "box_without_area"
        place = f"annotations[{file.positions[i]}]"
        message = f"{place} dropped: its bbox {box_xywh.tolist()} has no area"
        problems.add(kind, path, message, place=place)
    # Image after image, and within one in the order of the file.
    kept = np.flatnonzero(has_area)
    kept = kept[np.argsort(file.image_of[kept], kind="stable")]
    boxes_xyxy = file.boxes_xywh[kept]
    boxes_xyxy[:, 2:] += boxes_xyxy[:, :2]
    bounds = np.searchsorted(file.image_of[kept], np.arange(len(file.images) + 1)).tolist()
    annotations = tuple(
        Annotation(
            image_id=str(image.id),
            width=image.size[0],
            height=image.size[1],
            boxes_xyxy=boxes_xyxy[start:stop],
            labels=file.labels[kept[start:stop]],
            difficult=file.is_crowd[kept[start:stop]],
        )
        for image, (start, stop) in zip(file.images, pairwise(bounds), strict=True)
    )
    return GroundTruth(
        source=str(path),
        annotations=annotations,
        class_names=tuple(category.name for category in file.categories),
        category_ids=tuple(category.id for category in file.categories),
        problems=problems.sentences(),
    )
