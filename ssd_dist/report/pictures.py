"""The report's gallery: which pictures it shows, and what is drawn on them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssd_dist.evaluation.scene import DrawnBox, Scene, counts, match_scene
from ssd_dist.report.content import ReportContent
from ssd_dist.structures import Annotation

_LONGEST_SIDE = 640
_JPEG_QUALITY = 82


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
    scene = match_scene(
        content.annotations,
        content.detections,
        content.class_names,
        content.summary.score_thresholds,
        content.voc.options,
    )
    objects, found, assignment = scene.objects, scene.found, scene.assignment

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

    def picture(index: int) -> Picture:
        return _picture(scene, index, content.annotations[index], content.read_image(index))

    return Gallery(
        best=tuple(map(picture, best)),
        typical=tuple(map(picture, map(int, typical[:size]))),
        worst=tuple(map(picture, worst)),
        num_objects=int(num_objects.sum()),
        num_found=int(num_found.sum()),
        num_false=int(num_false.sum()),
    )


def _picture(scene: Scene, index: int, annotation: Annotation, image: np.ndarray) -> Picture:
    objects, detections = scene.boxes(index)
    num_objects, num_found, num_false = counts(objects, detections)
    return Picture(
        image_id=annotation.image_id,
        width=annotation.width,
        height=annotation.height,
        jpeg_uri=jpeg_uri(image),
        objects=objects,
        detections=detections,
        num_objects=num_objects,
        num_found=num_found,
        num_false=num_false,
    )


def jpeg_uri(picture: np.ndarray) -> str:
    """A data URI of the picture, shrunk to `_LONGEST_SIDE` where it is larger."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
