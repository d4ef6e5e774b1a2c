"""What is drawn on pictures: ground truth and detections, matched with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssd_dist.evaluation.assignment import Assignment, assign
from ssd_dist.evaluation.confusion import with_scores_from
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import (
    DetectionTable,
    ObjectTable,
    flatten_annotations,
    flatten_detections,
)
from ssd_dist.structures import Annotation, Detections


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box on a picture, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    class_index: int
    """0…C-1."""
    text: str
    """Class name, and the score of a detection."""
    mistake: bool
    """An object that was missed, or a detection that is false."""
    difficult: bool
    """An object that counts neither way, or a detection of one."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Ground truth and detections of pictures, matched with each other: what is drawn on them."""

    class_names: Sequence[str]
    objects: ObjectTable
    found: DetectionTable
    """From their class's threshold on."""
    assignment: Assignment

    def boxes(self, index: int) -> tuple[tuple[DrawnBox, ...], tuple[DrawnBox, ...]]:
        """The objects and the detections of the picture at position `index`."""
        objects, found = self.objects, self.found
        was_found = np.zeros(len(objects.labels), dtype=bool)
        was_found[self.assignment.objects[self.assignment.true_positive]] = True
        object_boxes = tuple(
            _drawn(
                objects.boxes_xyxy[i],
                int(objects.labels[i]),
                self.class_names,
                mistake=not (was_found[i] or objects.difficult[i]),
                difficult=bool(objects.difficult[i]),
            )
            for i in np.flatnonzero(objects.images == index)
        )
        detection_boxes = tuple(
            _drawn(
                found.boxes_xyxy[i],
                int(found.labels[i]),
                self.class_names,
                score=float(found.scores[i]),
                mistake=not (self.assignment.true_positive[i] or self.assignment.ignored[i]),
                difficult=bool(self.assignment.ignored[i]),
            )
            for i in np.flatnonzero(found.images == index)
        )
        return object_boxes, detection_boxes


def match_scene(
    annotations: Sequence[Annotation],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    score_thresholds: Mapping[str, float],
    options: ApOptions = PRESETS["exact"],
) -> Scene:
    """Matches what was found with what is there; `score_thresholds` gives every class's."""
    objects = flatten_annotations(annotations, len(class_names))
    found = with_scores_from(
        flatten_detections(detections, annotations, len(class_names)),
        [score_thresholds[name] for name in class_names],
        len(class_names),
    )
    return Scene(class_names, objects, found, assign(objects, found, options=options))


def counts(objects: Sequence[DrawnBox], detections: Sequence[DrawnBox]) -> tuple[int, int, int]:
    """Of a picture's boxes: objects that count, how many of them are found, false detections."""
    return (
        sum(not box.difficult for box in objects),
        sum(not box.mistake and not box.difficult for box in objects),
        sum(box.mistake for box in detections),
    )


def _drawn(
    box_xyxy: np.ndarray,
    label: int,
    class_names: Sequence[str],
    *,
    score: float | None = None,
    mistake: bool,
    difficult: bool,
) -> DrawnBox:
    x1, y1, x2, y2 = (round(float(v), 1) for v in box_xyxy)
    name = class_names[label - 1]
    return DrawnBox(
        x=x1,
        y=y1,
        width=round(x2 - x1, 1),
        height=round(y2 - y1, 1),
        class_index=label - 1,
        text=name if score is None else f"{name} {score:.2f}",
        mistake=mistake,
        difficult=difficult,
    )
