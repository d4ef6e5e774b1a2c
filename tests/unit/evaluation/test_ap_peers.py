"""The same 2,000 drawn cases by ours and by independent implementations, each with its preset.

They are drawn on a grid of whole pixels, so that equal overlaps, an IoU of exactly one half, equal
scores, classes that end exactly on a recall level, empty pictures and absent classes abound. What a
program can't do, or does by chance, is left out of its cases and pinned below. The slowest of them
gets 300 cases.
"""

import dataclasses

import kornia.metrics
import numpy as np
import pytest
import torch
from mean_average_precision import MetricBuilder
from mean_average_precision.utils import (
    compute_average_precision,
    compute_average_precision_with_recall_thresholds,
)
from podm.metrics import (
    BoundingBox,
    MethodAveragePrecision,
    MetricPerClass,
    get_pascal_voc_metrics,
)
from voc_scenes import CLASS_NAMES, annotation, detected, has_objects, random_scene

from ssd_dist.evaluation.options import PRESETS
from ssd_dist.evaluation.voc_ap import evaluate_voc

BLOCKS = range(20)
CASES_A_BLOCK = 100
IOU_THRESHOLDS = (0.5, 0.25, 0.5, 0.75)


def drawn(block, *, ties=True, min_side=1):
    """(case number, annotations, detections, IoU threshold) of one block of 100."""
    for case in range(block * CASES_A_BLOCK, (block + 1) * CASES_A_BLOCK):
        rng = np.random.default_rng(case)
        if case % 4 == 0:
            annotations, detections = scene_that_ends_on_a_level(rng)
        else:
            annotations, detections = random_scene(
                rng,
                num_scores=rng.choice([2, 5, 1000]),
                num_classes=rng.integers(1, 4),
                min_side=min_side,
            )
        if not has_objects(annotations):
            annotations.append(annotation("one", [[0, 0, 4, 4]], [1]))
            detections.append(detected("one"))
        if not ties:
            total = sum(len(d.labels) for d in detections)
            scores = iter((rng.permutation(total) + 1) / (total + 1))
            detections = [
                detected(d.image_id, d.boxes_xyxy, d.labels, [next(scores) for _ in d.labels])
                for d in detections
            ]
        yield case, annotations, detections, IOU_THRESHOLDS[case % 4]


def scene_that_ends_on_a_level(rng):
    """5 or 10 objects of one class, i tenths of which are found, some by an IoU of one half."""
    n = int(rng.choice([5, 10]))
    objects = np.array([[3 * i, 0, 3 * i + 2, 2] for i in range(n)])
    found = objects[rng.permutation(n)[: n * rng.choice([2, 4, 6, 8, 10]) // 10 - (n == 10)]]
    found[rng.random(len(found)) < 0.3, 3] = 1
    false = np.array([[0, 5, 2, 7]] * rng.integers(0, 4)).reshape(-1, 4)
    boxes = np.concatenate([found, false])
    labels, scores = np.ones(len(boxes)), rng.integers(1, 9, len(boxes)) / 10
    return [annotation("p", objects, np.ones(n))], [detected("p", boxes, labels, scores)]


def ours(annotations, detections, preset, iou_threshold):
    options = dataclasses.replace(PRESETS[preset], iou_threshold=iou_threshold)
    return evaluate_voc(annotations, detections, CLASS_NAMES, options=options)


# object-detection-metrics: Python's stable sort, so that equal scores can be compared.


def podm_boxes(pictures, image_scores):
    return [
        BoundingBox.of_bbox(picture.image_id, CLASS_NAMES[label - 1], *box, score)
        for picture, scores in zip(pictures, image_scores, strict=True)
        for box, label, score in zip(
            picture.boxes_xyxy.tolist(), picture.labels, scores, strict=True
        )
    ]


def podm_metrics(annotations, detections, iou_threshold, method):
    return get_pascal_voc_metrics(
        podm_boxes(annotations, [[None] * len(a.labels) for a in annotations]),
        podm_boxes(detections, [d.scores.tolist() for d in detections]),
        iou_threshold,
        method,
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_equals_object_detection_metrics(block):
    for case, annotations, detections, iou_threshold in drawn(block):
        result = ours(annotations, detections, "object-detection-metrics", iou_threshold)
        for method, aps, mean in (
            (MethodAveragePrecision.ElevenPointsInterpolation, result.ap_11pt, result.map_11pt),
            (MethodAveragePrecision.AllPointsInterpolation, result.ap_area, result.map_area),
        ):
            theirs = podm_metrics(annotations, detections, iou_threshold, method)
            assert mean == pytest.approx(MetricPerClass.mAP(theirs), abs=1e-9), case
            found = {name: metric.ap for name, metric in theirs.items() if metric.num_groundtruth}
            expected = {name: found.get(name) for name in CLASS_NAMES}
            assert aps == pytest.approx(expected, abs=1e-9), case


def test_object_detection_metrics_cannot_compare_points():
    # 0 / 0, where ours says that two boxes without area do not overlap.
    point = [[3, 3, 3, 3]]
    annotations = [annotation("p", [*point, [0, 0, 9, 9]], [1, 1])]
    detections = [detected("p", point, [1], [0.5])]
    with pytest.raises(ZeroDivisionError):
        podm_metrics(annotations, detections, 0.5, MethodAveragePrecision.ElevenPointsInterpolation)
    assert ours(annotations, detections, "object-detection-metrics", 0.5).map_11pt == 0


# mean-average-precision: added pixels, IoU above the threshold, difficult objects.


def without_chance(annotations, detections):
    """Without detections that overlap two objects of their class equally, and difficult objects
    beside others: see the pinned differences."""
    clean_annotations, clean_detections = [], []
    for a, d in zip(annotations, detections, strict=True):
        is_difficult = a.difficult.copy()
        for label in range(1, len(CLASS_NAMES) + 1):
            of_class = a.labels == label
            is_difficult[of_class] = is_difficult[of_class].any()
        keep = []
        for box, label in zip(d.boxes_xyxy, d.labels, strict=True):
            others = a.boxes_xyxy[a.labels == label]
            sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + 1
            inter = np.maximum(sides, 0).prod(axis=1)
            iou = inter / (
                (box[2:] - box[:2] + 1).prod()
                + (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
                - inter
            )
            keep.append((iou == iou.max(initial=-1)).sum() <= 1)
        keep = np.array(keep, dtype=bool)
        clean_annotations.append(annotation(a.image_id, a.boxes_xyxy, a.labels, is_difficult))
        clean_detections.append(
            detected(d.image_id, d.boxes_xyxy[keep], d.labels[keep], d.scores[keep])
        )
    return clean_annotations, clean_detections


def bes_dev_curves(annotations, detections, iou_threshold):
    """Class name → (precision, recall), as the package computes them, and its mean AP."""
    metric = MetricBuilder.build_evaluation_metric(
        "map_2d", async_mode=False, num_classes=len(CLASS_NAMES)
    )
    for a, d in zip(annotations, detections, strict=True):
        crowd = np.zeros(len(a.labels))
        metric.add(
            np.column_stack([d.boxes_xyxy, d.labels - 1, d.scores]),
            np.column_stack([a.boxes_xyxy, a.labels - 1, a.difficult, crowd]),
        )
    value = metric.value([iou_threshold], LEVELS, mpolicy="greedy")
    curves = value[iou_threshold]
    return {
        name: (curves[i]["precision"], curves[i]["recall"]) for i, name in enumerate(CLASS_NAMES)
    }, value["mAP"]


LEVELS = np.arange(0.0, 1.1, 0.1)


@pytest.mark.parametrize("block", BLOCKS[:3])
def test_equals_mean_average_precision(block):
    for case, *scene, iou_threshold in drawn(block, ties=False, min_side=0):
        annotations, detections = without_chance(*scene)
        if not has_objects(annotations):
            continue
        result = ours(annotations, detections, "mean-average-precision", iou_threshold)
        curves, mean = bes_dev_curves(annotations, detections, iou_threshold)
        assert result.map_11pt == pytest.approx(mean, abs=1e-7), case  # it rounds to float32
        for name, (precision, recall) in curves.items():  # from here on it does not
            ap = compute_average_precision_with_recall_thresholds(precision, recall, LEVELS)
            area = compute_average_precision(precision, recall)
            assert (result.ap_11pt[name] or 0) == pytest.approx(ap, abs=1e-9), case
            assert (result.ap_area[name] or 0) == pytest.approx(area, abs=1e-9), case


def test_mean_average_precision_looks_up_the_wrong_difficult_flag():
    # With two detections and two objects of which the first is difficult, it takes both objects of
    # the first detection for difficult and both of the second for ordinary.
    boxes = [[0, 0, 9, 9], [10, 10, 19, 19]]
    annotations = [annotation("p", boxes, [1, 1], [True, False])]
    detections = [detected("p", boxes[::-1], [1, 1], [0.9, 0.8])]
    curves, _ = bes_dev_curves(annotations, detections, 0.5)
    assert curves["a"][1].tolist() == [0, 0.5]  # the difficult object is found, the other is not
    result = ours(annotations, detections, "mean-average-precision", 0.5)
    assert result.curves["a"].recall.tolist() == [0.5]


# kornia: IoU above the threshold, exact recall levels, no difficult objects.


def kornia_map(annotations, detections, iou_threshold):
    def tensors(pictures, name, dtype):
        return [torch.as_tensor(getattr(p, name), dtype=dtype) for p in pictures]

    return kornia.metrics.mean_average_precision(
        tensors(detections, "boxes_xyxy", torch.float64),
        tensors(detections, "labels", torch.int64),
        tensors(detections, "scores", torch.float64),
        tensors(annotations, "boxes_xyxy", torch.float64),
        tensors(annotations, "labels", torch.int64),
        n_classes=len(CLASS_NAMES) + 1,
        threshold=iou_threshold,
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_equals_kornia(block):
    for case, annotations, detections, iou_threshold in drawn(block, ties=False):
        result = ours(annotations, detections, "kornia", iou_threshold)
        mean, aps = kornia_map(annotations, detections, iou_threshold)
        assert result.map_11pt == pytest.approx(mean.item(), abs=1e-9), case
        expected = {
            name: None if aps[i] < 0 else aps[i] for i, name in enumerate(CLASS_NAMES, start=1)
        }
        assert result.ap_11pt == pytest.approx(expected, abs=1e-9), case


def test_kornia_refuses_boxes_without_area():
    annotations = [annotation("p", [[0, 0, 9, 9]], [1])]
    detections = [detected("p", [[3, 3, 3, 8]], [1], [0.5])]
    with pytest.raises(AssertionError, match="invalid boxes"):
        kornia_map(annotations, detections, 0.5)
    assert ours(annotations, detections, "kornia", 0.5).map_11pt == 0


@pytest.mark.parametrize(
    "change",
    [
        {"strict_iou": True},
        {"inclusive_pixels": True},
        {"recall_levels": "arange"},
        {"count_difficult": True},
    ],
    ids=str,
)
def test_the_drawn_cases_tell_the_rules_apart(change):
    options = dataclasses.replace(PRESETS["exact"], **change)
    num_different = 0
    for _, annotations, detections, _ in drawn(0):
        exact = evaluate_voc(annotations, detections, CLASS_NAMES)
        other = evaluate_voc(annotations, detections, CLASS_NAMES, options=options)
        num_different += exact.map_11pt != other.map_11pt
    assert num_different >= 10
