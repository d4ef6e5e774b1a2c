"""Annotations and detections of pictures, by hand or drawn, for the tests of 11-point AP."""

import numpy as np

from ssd_dist.structures import Annotation, Detections

CLASS_NAMES = ("a", "b", "c")


def annotation(image_id, boxes_xyxy=(), labels=(), difficult=None):
    labels = np.array(labels, dtype=np.int64)
    return Annotation(
        image_id=image_id,
        width=20,
        height=20,
        boxes_xyxy=np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4),
        labels=labels,
        difficult=np.zeros(len(labels), bool) if difficult is None else np.array(difficult, bool),
    )


def detected(image_id, boxes_xyxy=(), labels=(), scores=()):
    return Detections(
        image_id=image_id,
        boxes_xyxy=np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        scores=np.array(scores, dtype=np.float32),
    )


def random_scene(rng, *, num_scores, num_classes=3, min_side=1, scale=1.0):
    """Up to four pictures of boxes on a coarse grid, so that equal overlaps and scores abound.

    Sides are `min_side` to 4 steps of `scale` pixels; there are `num_scores` different scores.
    """

    def boxes(n):
        corner = rng.integers(0, 6, (n, 2))
        return np.concatenate([corner, corner + rng.integers(min_side, 5, (n, 2))], axis=1) * scale

    annotations, detections = [], []
    for image in range(rng.integers(1, 5)):
        n, k = rng.integers(0, 6), rng.integers(0, 12)
        own = boxes(n)
        near = own[rng.integers(0, n, k)] if n else boxes(k)
        found = np.where(rng.random((k, 1)) < 0.6, near, boxes(k))
        labels, is_difficult = rng.integers(1, num_classes + 1, n), rng.random(n) < 0.25
        annotations.append(annotation(str(image), own, labels, is_difficult))
        labels, scores = rng.integers(1, num_classes + 1, k), rng.integers(1, num_scores + 1, k)
        detections.append(detected(str(image), found, labels, scores / (num_scores + 1)))
    return annotations, detections


def has_objects(annotations):
    """Whether there is an object that is not difficult, without which nothing can be evaluated."""
    return any((~a.difficult).any() for a in annotations)


def scene_of(case):
    """Of a case of tests/golden/voc_ap.json: its annotations and detections."""
    label_of = {name: i + 1 for i, name in enumerate(case["classes"])}
    rows = case["objects"] + case["detections"]
    image_ids = list(dict.fromkeys([r[0] for r in rows] + case.get("empty_pictures", [])))
    annotations, detections = [], []
    for image_id in image_ids:
        objects = [row for row in case["objects"] if row[0] == image_id]
        found = [row for row in case["detections"] if row[0] == image_id]
        annotations.append(
            annotation(
                image_id,
                [row[2] for row in objects],
                [label_of[row[1]] for row in objects],
                [row[3] for row in objects],
            )
        )
        detections.append(
            detected(
                image_id,
                [row[2] for row in found],
                [label_of[row[1]] for row in found],
                [row[3] for row in found],
            )
        )
    return annotations, detections
