"""Every combination of rules against a plain loop over detections, and the rules one by one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_scenes import CLASS_NAMES, annotation, detected, has_objects, random_scene

from ssd_dist.evaluation.assignment import assign, round_decimals
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import flatten_annotations, flatten_detections
from ssd_dist.evaluation.voc_ap import Rank, evaluate_voc

options_of_any_kind = st.builds(
    ApOptions,
    iou_threshold=st.sampled_from([0.25, 0.5, 0.75]),
    strict_iou=st.booleans(),
    inclusive_pixels=st.booleans(),
    single_precision=st.booleans(),
    count_difficult=st.booleans(),
    difficult_in_recall=st.booleans(),
    difficult_last=st.booleans(),
    recall_levels=st.sampled_from(["exact", "arange", "matlab"]),
    mean_over=st.sampled_from(["occurring", "all"]),
    score_decimals=st.sampled_from([None, 0, 1, 3]),
    box_decimals=st.sampled_from([None, 0, 1]),
    corner_offset=st.sampled_from([0.0, 1.0]),
)


def written(value, decimals):
    return float(value) if decimals is None else float(f"{np.float32(value):.{decimals}f}")


def loop_iou(a, b, options):
    number = np.float32 if options.single_precision else np.float64
    a, b, pixel = number(a), number(b), number(options.inclusive_pixels)
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + pixel, number(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + pixel, number(0))
    areas = [(c[2] - c[0] + pixel) * (c[3] - c[1] + pixel) for c in (a, b)]
    union = areas[0] + areas[1] - width * height
    return width * height / union if union else number(0)


def loop_class(annotations, detections, label, options):
    """(AP of 11 points, area, ranks) of one class, or (None, None, None) without objects."""
    objects, num_objects = {}, 0
    for a in annotations:
        rows = [i for i in range(len(a.labels)) if a.labels[i] == label]
        own = [
            {"box": a.boxes_xyxy[i], "skip": bool(a.difficult[i]) and not options.count_difficult}
            for i in rows
        ]
        num_objects += sum(options.difficult_in_recall or not one["skip"] for one in own)
        objects[a.image_id] = (
            sorted(own, key=lambda one: one["skip"]) if options.difficult_last else own
        )
    found = []
    for d in detections:
        for box, its_label, score in zip(d.boxes_xyxy, d.labels, d.scores, strict=True):
            if its_label == label:
                moved = np.float32(box) + np.float32([options.corner_offset] * 2 + [0, 0])
                box = [written(side, options.box_decimals) for side in moved]
                found.append((written(score, options.score_decimals), d.image_id, box))
    found.sort(key=lambda row: -row[0])  # stable
    points, num_true, num_counted = [], 0, 0
    for score, image_id, box in found:
        most, its_object = -1, None
        for one in objects[image_id]:
            iou = loop_iou(box, one["box"], options)
            if iou > most:
                most, its_object = iou, one
        strict = options.strict_iou
        is_hit = most > options.iou_threshold if strict else most >= options.iou_threshold
        if is_hit and its_object["skip"]:
            continue
        num_counted += 1
        if is_hit and not its_object.get("taken"):
            num_true += 1
            its_object["taken"] = True
        points.append((score, num_true, num_true / num_counted))
    if num_objects == 0:
        return None, None, None
    levels = {
        "exact": [i / 10 for i in range(11)],
        "arange": np.arange(0.0, 1.1, 0.1).tolist(),
        "matlab": [i * 0.1 for i in range(6)] + [1 - i * 0.1 for i in (4, 3, 2, 1, 0)],
    }[options.recall_levels]
    ranks = []
    for i, level in enumerate(levels):
        there = [p for p in points if p[1] / num_objects >= level]
        ranks.append(
            Rank(i / 10, there[0][0], max(p[2] for p in there)) if there else Rank(i / 10, None, 0)
        )
    area, recall = 0.0, 0.0
    for _, num_true, _ in points:
        best = max(p[2] for p in points if p[1] >= num_true)
        area += (num_true / num_objects - recall) * best
        recall = num_true / num_objects
    return sum(rank.precision for rank in ranks) / 11, area, ranks


@given(st.integers(0, 2**32 - 1), options_of_any_kind, st.sampled_from([1.0, 0.3, 0.05]))
@settings(deadline=None, max_examples=400)
def test_equals_a_plain_loop(seed, options, scale):
    rng = np.random.default_rng(seed)
    annotations, detections = random_scene(
        rng, num_scores=int(rng.choice([2, 9, 5000])), min_side=0, scale=scale
    )
    annotations.append(annotation("one", [[0, 0, 4, 4]], [1]))  # never without an object
    result = evaluate_voc(annotations, detections, CLASS_NAMES, options=options)
    aps, areas = [], []
    for label, name in enumerate(CLASS_NAMES, start=1):
        ap, area, ranks = loop_class(annotations, detections, label, options)
        aps.append(ap)
        areas.append(area)
        assert result.ap_11pt[name] == (None if ap is None else pytest.approx(ap, abs=1e-12))
        assert result.ap_area[name] == (None if area is None else pytest.approx(area, abs=1e-12))
        if ranks is not None:
            assert result.ranks[name] == ranks
    for mean, values in ((result.map_11pt, aps), (result.map_area, areas)):
        occurring = [value for value in values if value is not None]
        num_classes = len(values) if options.mean_over == "all" else len(occurring)
        assert mean == pytest.approx(sum(occurring) / num_classes, abs=1e-12)


def test_the_recall_levels_are_numpys_and_matlabs_to_the_last_bit():
    # Of 10 objects 3, 6 and 7 are where the levels differ; every other program's loop is as above.
    boxes = [[i, 0, i + 0.5, 1] for i in range(10)]
    lost = {}
    for levels in ("exact", "arange", "matlab"):
        options = ApOptions(recall_levels=levels)
        lost[levels] = [
            i
            for i in range(1, 11)
            if evaluate_voc(
                [annotation("p", boxes, [1] * 10)],
                [detected("p", boxes[:i], [1] * i, np.linspace(0.9, 0.1, i))],
                "a",
                options=options,
            ).map_11pt
            < (i + 1) / 11
        ]
    assert lost == {"exact": [], "arange": [3, 6, 7], "matlab": [3]}
    assert np.array_equal(np.linspace(0, 1, 11), np.arange(0.0, 1.1, 0.1))
    assert np.array_equal(np.arange(0, 1 + 1e-3, 0.1), np.arange(0.0, 1.1, 0.1))


@given(st.floats(-1000, 1000, width=32), st.integers(0, 8))
def test_rounding_is_that_of_written_numbers(value, decimals):
    rounded = round_decimals(np.array([value], dtype=np.float32), decimals)
    assert rounded.tolist() == [float(f"{value:.{decimals}f}")]


def test_np_round_would_not_do():
    values = np.float32([0.15, 0.25, 0.35, 2.675])
    assert round_decimals(values, 1).tolist() == [0.2, 0.2, 0.3, 2.7]
    assert round_decimals(np.float32([0.0005, 0.0015, 0.8125]), 3).tolist() == [0.001, 0.002, 0.812]


@pytest.mark.parametrize(
    ("dtype", "score"),  # packed into one number with the label; the same; too long for that
    [(np.float32, 0.1), (np.float64, 0.125), (np.float64, 0.1)],
)
@pytest.mark.parametrize("num_classes", [3, 1 << 20])  # 21 bits of label leave no room for the row
def test_order_is_by_class_and_falling_score_and_stable(dtype, score, num_classes):
    rng = np.random.default_rng(0)
    scores = rng.choice([-2.5, -0.0, 0.0, score, 2.0**-140, 7.0], 3000).astype(dtype)
    labels = rng.integers(num_classes - 2, num_classes + 1, 3000)
    boxes = np.tile([0, 0, 9, 9], (3000, 1)).astype(np.float32)
    found = detected("p", boxes, labels)
    found = dataclasses.replace(found, scores=scores)
    pictures = [annotation("p", boxes[:2], labels[:2])]
    objects = flatten_annotations(pictures, num_classes)
    detections = flatten_detections([found], pictures, num_classes)
    assignment = assign(objects, detections)
    expected = sorted(range(3000), key=lambda i: (labels[i], -scores[i]))
    assert assignment.order.tolist() == expected
    assert assignment.scores.dtype == dtype
    assert assignment.scores.tolist() == scores[expected].tolist()
    assert (
        assignment.true_at.tolist()
        == np.flatnonzero(assignment.true_positive[assignment.order]).tolist()
    )
    assert assignment.true_positive.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iou_threshold": 0}, "iou_threshold must be above 0 and at most 1, not 0"),
        ({"iou_threshold": -0.5}, "iou_threshold"),
        ({"iou_threshold": 1.1}, "iou_threshold"),
        ({"iou_threshold": float("nan")}, "iou_threshold"),
        ({"recall_levels": "linspace"}, "recall_levels must be exact, arange or matlab"),
        ({"mean_over": "some"}, "mean_over must be occurring or all, not 'some'"),
        ({"score_decimals": -1}, "score_decimals must be 0 to 8"),
        ({"box_decimals": 9}, "box_decimals must be 0 to 8"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ApOptions(**change)


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["mine"] = ApOptions()
    assert PRESETS["exact"] == ApOptions()


def test_corner_offset_brings_boxes_of_detectron2_into_the_files_coordinates():
    # Added pixels: the object is 2 x 2; the detection is 3 x 3 around it, or 2 x 2 when moved.
    annotations = [annotation("p", [[1, 1, 2, 2]], [1])]
    detections = [detected("p", [[0, 0, 2, 2]], [1], [0.5])]
    plain = PRESETS["detectron2"]
    moved = dataclasses.replace(plain, corner_offset=1.0)
    assert evaluate_voc(annotations, detections, CLASS_NAMES, options=plain).map_11pt == 0
    assert evaluate_voc(annotations, detections, "a", options=moved).map_11pt == 1


def test_a_scene_without_objects_that_count_has_them_where_difficult_ones_do():
    annotations = [annotation("p", [[0, 0, 9, 9]], [1], [True])]
    detections = [detected("p", [[0, 0, 9, 9]], [1], [0.5])]
    assert not has_objects(annotations)
    with pytest.raises(ValueError, match="no meaning"):
        evaluate_voc(annotations, detections, CLASS_NAMES)
    result = evaluate_voc(annotations, detections, CLASS_NAMES, options=PRESETS["kornia"])
    assert result.ap_11pt == {"a": 1.0, "b": None, "c": None}
