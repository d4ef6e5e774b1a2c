"""Objects and detections, by hand or drawn, for the tests of what stands beside 11-point AP."""

from fractions import Fraction

import numpy as np

from ssd_dist.evaluation.tables import DetectionTable, ObjectTable
from ssd_dist.structures import Annotation, Detections

NUM_CLASSES = 3
CLASS_NAMES = ("a", "b", "c")


def objects_of(rows):
    """Rows of (picture, box, label) or (picture, box, label, difficult)."""
    return ObjectTable(
        images=np.array([row[0] for row in rows], dtype=np.int64),
        boxes_xyxy=np.array([row[1] for row in rows], dtype=np.float32).reshape(-1, 4),
        labels=np.array([row[2] for row in rows], dtype=np.int64),
        difficult=np.array([len(row) > 3 and row[3] for row in rows], dtype=bool),
    )


def detections_of(rows):
    """Rows of (picture, box, label, score)."""
    return DetectionTable(
        images=np.array([row[0] for row in rows], dtype=np.int64),
        boxes_xyxy=np.array([row[1] for row in rows], dtype=np.float32).reshape(-1, 4),
        labels=np.array([row[2] for row in rows], dtype=np.int64),
        scores=np.array([row[3] for row in rows], dtype=np.float32),
    )


def random_tables(rng, *, num_images=4, difficult=0.25, distinct_boxes=False):
    """Boxes on a coarse grid, so that equal overlaps abound; scores that all differ.

    With `distinct_boxes` no two objects of a picture are in the same place.
    """

    def boxes(n):
        corner = rng.integers(0, 6, (n, 2))
        return np.concatenate([corner, corner + rng.integers(1, 5, (n, 2))], axis=1)

    objects, detections = [], []
    for image in range(num_images):
        own = boxes(rng.integers(0, 6))
        if distinct_boxes:
            own = np.unique(own, axis=0)
        k = rng.integers(0, 12)
        near = own[rng.integers(0, len(own), k)] if len(own) else boxes(k)
        found = np.where(rng.random((k, 1)) < 0.6, near, boxes(k))
        for box in own:
            row = (image, box, rng.integers(1, NUM_CLASSES + 1), rng.random() < difficult)
            objects.append(row)
        detections += [(image, box, rng.integers(1, NUM_CLASSES + 1)) for box in found]
    scores = (rng.permutation(len(detections)) + 1) / (len(detections) + 1)
    detections = [(*row, score) for row, score in zip(detections, scores, strict=True)]
    return objects_of(objects), detections_of(detections)


def with_an_object(objects, detections):
    """The scene with one more object, away from all others, so that there is something to find."""
    rows = zip(objects.images, objects.boxes_xyxy, objects.labels, objects.difficult, strict=True)
    return objects_of([(0, [15, 15, 19, 19], 1), *rows]), detections


def select(table, rows):
    """The rows of a table, in this order."""
    return type(table)(*(getattr(table, name)[rows] for name in table.__slots__))


def renumbered(table, position):
    """The table with picture i at `position[i]`, its rows sorted by picture as readers do."""
    columns = {name: getattr(table, name) for name in table.__slots__}
    columns["images"] = np.asarray(position, dtype=np.int64)[table.images]
    moved = type(table)(**columns)
    return select(moved, np.argsort(moved.images, kind="stable"))


def pictures_of(objects, detections, drawn):
    """Annotations and detections of the pictures `drawn`, each under an id of its own."""
    annotations, found = [], []
    for i, image in enumerate(drawn):
        own = select(objects, objects.images == image)
        annotations.append(Annotation(str(i), 20, 20, own.boxes_xyxy, own.labels, own.difficult))
        there = select(detections, detections.images == image)
        found.append(Detections(str(i), there.boxes_xyxy, there.labels, there.scores))
    return annotations, found


def exact_iou(a, b):
    """IoU of two boxes with whole numbers, as a fraction."""
    a, b = [int(v) for v in a], [int(v) for v in b]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return Fraction(width * height, area_a + area_b - width * height)
