import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_scenes import CLASS_NAMES, annotation, detected, has_objects, random_scene, scene_of

from ssd_dist.evaluation import assignment
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.voc_ap import evaluate_voc

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "voc_ap.json").read_text("utf-8"))
CASES = GOLDEN["cases"]


def fractions(aps):
    return {name: ap if ap is None else float(Fraction(ap)) for name, ap in aps.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_values_worked_by_hand(case):
    result = evaluate_voc(*scene_of(case), case["classes"])
    assert result.ap_11pt == pytest.approx(fractions(case["ap"]), abs=1e-15)
    assert result.map_11pt == pytest.approx(float(Fraction(case["map"])), abs=1e-15)
    if "area" in case:
        assert result.ap_area == pytest.approx(fractions(case["area"]), abs=1e-15)
        areas = [area for area in result.ap_area.values() if area is not None]
        assert result.map_area == pytest.approx(sum(areas) / len(areas), abs=1e-15)


@pytest.mark.parametrize(
    ("case", "preset"),
    [(case, preset) for case in CASES for preset in case.get("under", {})],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_values_worked_by_hand_by_the_rules_of_others(case, preset):
    result = evaluate_voc(*scene_of(case), case["classes"], options=PRESETS[preset])
    expected = case["under"][preset]
    assert result.ap_11pt == pytest.approx(fractions(expected["ap"]), abs=1e-15)
    assert result.map_11pt == pytest.approx(float(Fraction(expected["map"])), abs=1e-15)


def test_ranks_and_curve_worked_by_hand():
    # Found, false, found, of four objects: recall 1/4, 1/4, 1/2; precision 1, 1/2, 2/3.
    objects = [[0, 0, 4, 4], [5, 0, 9, 4], [10, 0, 14, 4], [15, 0, 19, 4]]
    found = [objects[0], [0, 10, 4, 14], objects[1]]
    result = evaluate_voc(
        [annotation("p", objects, [1] * 4)], [detected("p", found, [1] * 3, [0.75, 0.5, 0.25])], "a"
    )
    ranks = result.ranks["a"]
    assert [rank.recall for rank in ranks] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert [rank.confidence for rank in ranks] == [0.75] * 3 + [0.25] * 3 + [None] * 5
    assert [rank.precision for rank in ranks] == [1.0] * 3 + [2 / 3] * 3 + [0.0] * 5
    curve = result.curves["a"]
    assert curve.recall.tolist() == [0.25, 0.25, 0.5]
    assert curve.precision.tolist() == [1, 0.5, 2 / 3]
    assert curve.confidence.tolist() == [0.75, 0.5, 0.25]
    assert result.num_objects == {"a": 4}


@pytest.mark.parametrize("num_objects", [3, 7, 10, 70, 110])
def test_no_level_is_lost_where_recall_ends_on_it(num_objects):
    boxes = [[i, 0, i + 0.5, 1] for i in range(num_objects)]
    annotations = [annotation("p", boxes, [1] * num_objects)]
    for num_found in range(1, num_objects + 1):
        scores = np.linspace(0.9, 0.1, num_found)
        found = [detected("p", boxes[:num_found], [1] * num_found, scores)]
        num_levels = 10 * num_found // num_objects + 1
        assert evaluate_voc(annotations, found, "a").map_11pt == num_levels / 11


def test_class_without_objects_has_ranks_never_reached_and_an_empty_curve():
    result = evaluate_voc(
        [annotation("p", [[0, 0, 9, 9]], [1])],
        [detected("p", [[0, 0, 9, 9]], [2], [0.5])],
        ["a", "b"],
    )
    assert len(result.ranks["b"]) == 11
    assert {(r.confidence, r.precision) for r in result.ranks["b"]} == {(None, 0.0)}
    assert len(result.curves["b"].recall) == 0


# An independent reference: the development kit's algorithm, word for word, in exact arithmetic.


def reference_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return Fraction(width * height, area(a) + area(b) - width * height)


def reference_ap(annotations, detections, label, iou_threshold):
    """(AP or None, [(confidence or None, precision)] × 11) of one class; boxes are integers."""
    objects, num_objects = {}, 0
    for a in annotations:
        rows = [i for i in range(len(a.labels)) if a.labels[i] == label]
        objects[a.image_id] = [
            {"box": [int(v) for v in a.boxes_xyxy[i]], "difficult": a.difficult[i], "taken": False}
            for i in rows
        ]
        num_objects += sum(not a.difficult[i] for i in rows)
    found = [
        (float(d.scores[i]), d.image_id, [int(v) for v in d.boxes_xyxy[i]])
        for d in detections
        for i in range(len(d.labels))
        if d.labels[i] == label
    ]
    found.sort(key=lambda row: -row[0])  # stable
    num_true, num_false, points = 0, 0, []
    for score, image_id, box in found:
        most, its_object = Fraction(-1), None
        for one in objects[image_id]:
            iou = reference_iou(one["box"], box)
            if iou > most:
                most, its_object = iou, one
        if most >= iou_threshold:
            if its_object["difficult"]:
                continue
            if its_object["taken"]:
                num_false += 1
            else:
                num_true += 1
                its_object["taken"] = True
        else:
            num_false += 1
        points.append((score, num_true, Fraction(num_true, num_true + num_false)))
    if num_objects == 0:
        return None, None
    ranks = []
    for i in range(11):
        there = [p for p in points if Fraction(p[1], num_objects) >= Fraction(i, 10)]
        ranks.append((there[0][0], max(p[2] for p in there)) if there else (None, Fraction(0)))
    return sum(precision for _, precision in ranks) / 11, ranks


@pytest.mark.parametrize("seed", range(400))
def test_equals_the_development_kit_in_exact_arithmetic(seed):
    rng = np.random.default_rng(seed)
    annotations, detections = random_scene(rng, num_scores=int(rng.choice([2, 5, 1000])))
    iou_threshold = float(rng.choice([0.25, 0.5, 0.75]))
    expected = {
        name: reference_ap(annotations, detections, label, Fraction(iou_threshold))
        for label, name in enumerate(CLASS_NAMES, start=1)
    }
    if all(ap is None for ap, _ in expected.values()):
        with pytest.raises(ValueError, match="no meaning"):
            evaluate_voc(
                annotations, detections, CLASS_NAMES, options=ApOptions(iou_threshold=iou_threshold)
            )
        return
    result = evaluate_voc(
        annotations, detections, CLASS_NAMES, options=ApOptions(iou_threshold=iou_threshold)
    )
    for name, (ap, ranks) in expected.items():
        assert result.ap_11pt[name] == (None if ap is None else pytest.approx(float(ap), abs=1e-12))
        if ranks is not None:
            assert [r.confidence for r in result.ranks[name]] == [c for c, _ in ranks]
            assert [r.precision for r in result.ranks[name]] == [float(p) for _, p in ranks]


@pytest.mark.parametrize("detections_at_once", [1, 3])
def test_the_size_of_the_chunks_changes_nothing(monkeypatch, detections_at_once):
    scenes = [random_scene(np.random.default_rng(seed), num_scores=5) for seed in range(40)]
    scenes = [scene for scene in scenes if has_objects(scene[0])]
    before = [evaluate_voc(*scene, CLASS_NAMES) for scene in scenes]
    monkeypatch.setattr(assignment, "_DETECTIONS_AT_ONCE", detections_at_once)
    for scene, expected in zip(scenes, before, strict=True):
        assert evaluate_voc(*scene, CLASS_NAMES).ranks == expected.ranks


# Properties.

seeds = st.integers(0, 2**32 - 1)


def scene_with_distinct_scores(seed):
    rng = np.random.default_rng(seed)
    annotations, detections = random_scene(rng, num_scores=1)
    annotations.append(annotation("one", [[0, 0, 4, 4]], [1]))  # never without an object
    total = sum(len(d.labels) for d in detections)
    scores = iter(rng.permutation(total) / (total + 1) + 0.01)
    detections = [
        detected(d.image_id, d.boxes_xyxy, d.labels, [next(scores) for _ in d.labels])
        for d in detections
    ]
    return rng, annotations, detections


@given(seeds)
@settings(deadline=None)
def test_the_order_of_pictures_and_detections_does_not_matter(seed):
    rng, annotations, detections = scene_with_distinct_scores(seed)
    shuffled = []
    for i in rng.permutation(len(detections)):
        d, rows = detections[i], rng.permutation(len(detections[i].labels))
        shuffled.append(detected(d.image_id, d.boxes_xyxy[rows], d.labels[rows], d.scores[rows]))
    pictures = [annotations[i] for i in rng.permutation(len(annotations))]
    expected = evaluate_voc(annotations, detections, CLASS_NAMES)
    assert evaluate_voc(pictures, shuffled, CLASS_NAMES).ranks == expected.ranks


@given(seeds)
@settings(deadline=None)
def test_a_false_positive_below_all_others_changes_nothing_above(seed):
    _, annotations, detections = scene_with_distinct_scores(seed)
    before = evaluate_voc(annotations, detections, CLASS_NAMES)
    annotations.append(annotation("empty"))
    detections.append(detected("empty", [[0, 0, 3, 3]] * 3, [1, 2, 3], [0.001] * 3))
    after = evaluate_voc(annotations, detections, CLASS_NAMES)
    for name, ap in before.ap_11pt.items():
        assert after.curves[name].precision[: len(before.curves[name].precision)].tolist() == (
            before.curves[name].precision.tolist()
        )
        if ap:  # a class with no true positive yet has its first detection, still of precision 0
            assert after.ranks[name] == before.ranks[name]
        assert after.ap_11pt[name] == ap


@given(seeds)
@settings(deadline=None)
def test_ap_lies_between_0_and_1_and_recall_never_falls(seed):
    _, annotations, detections = scene_with_distinct_scores(seed)
    result = evaluate_voc(annotations, detections, CLASS_NAMES)
    assert 0 <= result.map_11pt <= 1
    assert all(ap is None or 0 <= ap <= 1 for ap in result.ap_11pt.values())
    for curve in result.curves.values():
        assert (np.diff(curve.recall) >= 0).all()
        assert (np.diff(curve.confidence) <= 0).all()


@given(seeds)
@settings(deadline=None)
def test_perfect_detections_give_1(seed):
    _, annotations, _ = scene_with_distinct_scores(seed)
    # Two objects in the same place would compete for their detections.
    annotations = [
        annotation(a.image_id, a.boxes_xyxy[rows], a.labels[rows], a.difficult[rows])
        for a in annotations
        for rows in [np.unique(a.boxes_xyxy, axis=0, return_index=True)[1]]
    ]
    perfect = [
        detected(a.image_id, a.boxes_xyxy, a.labels, np.linspace(0.9, 0.1, len(a.labels)))
        for a in annotations
    ]
    assert evaluate_voc(annotations, perfect, CLASS_NAMES).map_11pt == 1


# Bad input.

BOX = [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("annotations", "detections", "message"),
    [
        (
            [annotation("p", BOX, [1])],
            [detected("q", BOX, [1], [0.5])],
            "image id 'q', which is not among the 1 annotated",
        ),
        (
            [annotation("p", BOX, [1]), annotation("p", BOX, [1])],
            [],
            "'p' occurs twice among the annotations",
        ),
        (
            [annotation("p", BOX, [1])],
            [detected("p"), detected("p")],
            "'p' occurs twice among the detections",
        ),
        (
            [annotation("o"), annotation("p", BOX, [1])],
            [detected("o", BOX, [1], [1]), detected("p", BOX * 2, [1, 1], [0.5, np.nan])],
            "image 'p', detection 1: score nan is not finite",
        ),
        (
            [annotation("p", BOX, [1])],
            [detected("p", [*BOX, [0, np.nan, 1, 1]], [1, 1], [0.5, 0.5])],
            r"image 'p', detection 1: box \[0.0, nan, 1.0, 1.0\] is not finite",
        ),
        (
            [annotation("p", BOX, [1])],
            [detected("p", [[5, 0, 4, 9]], [1], [0.5])],
            "image 'p', detection 0: box .* negative side",
        ),
        (
            [annotation("p", [[0, 0, np.inf, 1]], [1])],
            [],
            "image 'p', object 0: box .* is not finite",
        ),
        (
            [annotation("p", BOX, [1])],
            [detected("p", BOX, [4], [0.5])],
            "image 'p', detection 0: label 4 is not one of 1…3",
        ),
        ([annotation("p", BOX, [0])], [], "image 'p', object 0: label 0 is not one of 1…3"),
        (
            [annotation("p", BOX, [1]), annotation("q", BOX * 2, [1])],
            [],
            "image 'q': 2 rows of boxes_xyxy for 1 labels",
        ),
        (
            [annotation("p", BOX, [1])],
            [detected("p", BOX, [1], [0.5, 0.5])],
            "image 'p': 2 rows of scores for 1 labels",
        ),
        (
            [annotation("p"), annotation("q", BOX, [1], [True])],
            [],
            "none of the 1 objects counts",
        ),
    ],
)
def test_mistakes_are_named(annotations, detections, message):
    with pytest.raises(ValueError, match=message):
        evaluate_voc(annotations, detections, CLASS_NAMES)


def test_equal_class_names_are_refused():
    with pytest.raises(ValueError, match="differ"):
        evaluate_voc([annotation("p", BOX, [1])], [], ["a", "a"])


def test_detections_without_area_are_false_and_do_no_harm():
    result = evaluate_voc(
        [annotation("p", BOX, [1])],
        [detected("p", [[3, 3, 3, 3], *BOX], [1, 1], [0.9, 0.8])],
        CLASS_NAMES,
    )
    assert result.ap_11pt["a"] == 0.5


def test_no_detections_at_all():
    result = evaluate_voc([annotation("p", BOX, [1])], [], CLASS_NAMES)
    assert result.ap_11pt == {"a": 0.0, "b": None, "c": None}
    assert result.map_11pt == 0
