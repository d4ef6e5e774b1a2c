"""The report's gallery: which pictures it shows, and what is drawn on them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssd_dist.evaluation.assignment import Assignment, assign
from ssd_dist.evaluation.confusion import with_scores_from
from ssd_dist.evaluation.tables import (
    DetectionTable,
    ObjectTable,
    flatten_annotations,
    flatten_detections,
)
from ssd_dist.report.content import ReportContent

_LONGEST_SIDE = 640
_JPEG_QUALITY = 82


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


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the gallery with its ground truth and its detections."""

    image_id: str
    width: int
    height: int
    jpeg_uri: str
    objects: tuple[DrawnBox, ...]
    detections: tuple[DrawnBox, ...]
    num_objects: int
    num_found: int
    num_false: int


@dataclass(frozen=True, slots=True)
class Gallery:
    """Chosen pictures, and the counts of all of them at the thresholds they are drawn with."""

    best: tuple[Picture, ...]
    typical: tuple[Picture, ...]
    worst: tuple[Picture, ...]
    num_objects: int
    num_found: int
    num_false: int


def make_gallery(content: ReportContent, num_each: int = 4) -> Gallery:
    """The best, typical and worst pictures by F1, detections cut at each class's
    threshold in the summary.

    Of pictures with equal F1 the fuller one is the better example and the one with more mistakes
    the worse. Fewer than `num_each` of a kind where there are not enough pictures. Raises what
    `read_image` raises.
    """
    objects = flatten_annotations(content.annotations, len(content.class_names))
    found = with_scores_from(
        flatten_detections(content.detections, content.annotations, len(content.class_names)),
        [content.summary.score_thresholds[name] for name in content.class_names],
        len(content.class_names),
    )
    assignment = assign(objects, found, options=content.voc.options)

    num_pictures = len(content.annotations)
    false = ~assignment.true_positive & ~assignment.ignored
    num_objects = np.bincount(objects.images[~objects.difficult], minlength=num_pictures)
    num_found = np.bincount(found.images[assignment.true_positive], minlength=num_pictures)
    num_false = np.bincount(found.images[false], minlength=num_pictures)
    total = num_objects + num_found + num_false
    # A picture with nothing in it and nothing found is right, and shows little: F1 of 1, last.
    f1 = np.where(total > 0, 2 * num_found / np.maximum(total, 1), 1.0)

    size = min(num_each, max(num_pictures // 3, 1))
    from_best = np.lexsort((-num_found, -f1)).tolist()
    from_worst = np.lexsort((-(num_objects - num_found + num_false), f1)).tolist()
    best = from_best[:size]
    worst = [i for i in from_worst if i not in best][:size]
    taken = {*best, *worst}
    typical = [i for i in np.argsort(np.abs(f1 - np.median(f1)), kind="stable") if i not in taken]

    drawing = _Drawing(content, objects, found, assignment)
    return Gallery(
        best=tuple(map(drawing.picture, best)),
        typical=tuple(map(drawing.picture, map(int, typical[:size]))),
        worst=tuple(map(drawing.picture, worst)),
        num_objects=int(num_objects.sum()),
        num_found=int(num_found.sum()),
        num_false=int(num_false.sum()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """What every picture of the gallery is drawn from."""

    content: ReportContent
    objects: ObjectTable
    found: DetectionTable
    assignment: Assignment

    def picture(self, index: int) -> Picture:
        annotation = self.content.annotations[index]
        names = self.content.class_names
        objects, found = self.objects, self.found
        was_found = np.zeros(len(objects.labels), dtype=bool)
        was_found[self.assignment.objects[self.assignment.true_positive]] = True

        object_boxes = [
            _drawn(
                objects.boxes_xyxy[i],
                int(objects.labels[i]),
                names,
                mistake=not (was_found[i] or objects.difficult[i]),
                difficult=bool(objects.difficult[i]),
            )
            for i in np.flatnonzero(objects.images == index)
        ]
        detection_boxes = [
            _drawn(
                found.boxes_xyxy[i],
                int(found.labels[i]),
                names,
                score=float(found.scores[i]),
                mistake=not (self.assignment.true_positive[i] or self.assignment.ignored[i]),
                difficult=bool(self.assignment.ignored[i]),
            )
            for i in np.flatnonzero(found.images == index)
        ]
        return Picture(
            image_id=annotation.image_id,
            width=annotation.width,
            height=annotation.height,
            jpeg_uri=_jpeg_uri(self.content.read_image(index)),
            objects=tuple(object_boxes),
            detections=tuple(detection_boxes),
            num_objects=sum(not box.difficult for box in object_boxes),
            num_found=sum(not box.mistake and not box.difficult for box in object_boxes),
            num_false=sum(box.mistake for box in detection_boxes),
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


def _jpeg_uri(picture: np.ndarray) -> str:
    """A data URI of the picture, shrunk to `_LONGEST_SIDE` where it is larger."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
