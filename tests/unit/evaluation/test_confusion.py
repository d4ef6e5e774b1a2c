from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tables import (
    NUM_CLASSES,
    detections_of,
    exact_iou,
    objects_of,
    random_tables,
    renumbered,
    select,
)

from ssd_dist.evaluation import confusion
from ssd_dist.evaluation.confusion import confusion_matrix, overlapping_pairs

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]
TENTHS = {9: [0, 0, 9, 10], 8: [0, 0, 8, 10], 6: [0, 0, 6, 10]}
"""IoU with BOX in tenths → a box."""


def matrix(objects, detections, **options):
    options = {"score_threshold": 0.0, **options}
    return confusion_matrix(
        objects_of(objects), detections_of(detections), NUM_CLASSES, **options
    ).tolist()


def entries(objects, detections, **options):
    """{(true class, detected class): how many} where there are any."""
    rows = matrix(objects, detections, **options)
    return {(i, j): n for i, row in enumerate(rows) for j, n in enumerate(row) if n}


def test_right_wrong_missed_and_background():
    objects = [(0, BOX, 1), (1, BOX, 2), (1, FAR, 2), (2, BOX, 3)]
    detections = [(0, BOX, 1, 0.9), (1, BOX, 3, 0.8), (1, FAR, 2, 0.7), (0, FAR, 2, 0.6)]
    assert matrix(objects, detections) == [
        [0, 0, 1, 0],  # a detection of class 2 where there is nothing
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        [1, 0, 0, 0],  # the object of class 3 is missed
    ]


def test_the_larger_overlap_comes_before_the_higher_score():
    detections = [(0, TENTHS[6], 1, 0.9), (0, TENTHS[9], 2, 0.3)]
    assert entries([(0, BOX, 1)], detections) == {(1, 2): 1, (0, 1): 1}


def test_of_equal_overlaps_the_higher_score_is_taken():
    detections = [(0, BOX, 1, 0.3), (0, BOX, 2, 0.9)]
    assert entries([(0, BOX, 1)], detections) == {(1, 2): 1, (0, 1): 1}


def test_of_equal_overlaps_and_scores_the_right_class_is_taken():
    objects = [(0, BOX, 1), (0, BOX, 2)]
    assert entries(objects, [(0, BOX, 2, 0.5)]) == {(2, 2): 1, (1, 0): 1}


def test_where_the_best_object_is_taken_the_second_best_is_tried():
    # IoU of the second detection: 8/10 with the first object, 6/10 with the second.
    objects = [(0, BOX, 1), (0, TENTHS[6], 2)]
    detections = [(0, BOX, 1, 0.5), (0, TENTHS[8], 3, 0.9)]
    assert entries(objects, detections) == {(1, 1): 1, (2, 3): 1}


def test_difficult_objects_take_any_number_and_do_not_count():
    objects = [(0, BOX, 1, True), (0, FAR, 1)]
    detections = [(0, BOX, 1, 0.9), (0, TENTHS[9], 1, 0.8), (0, TENTHS[8], 2, 0.7)]
    assert entries(objects, detections) == {(1, 0): 1}


def test_the_iou_threshold_is_reached_not_exceeded():
    assert entries([(0, BOX, 1)], [(0, TENTHS[6], 1, 0.5)], iou_threshold=0.6) == {(1, 1): 1}
    assert entries([(0, BOX, 1)], [(0, TENTHS[6], 1, 0.5)], iou_threshold=0.61) == {
        (1, 0): 1,
        (0, 1): 1,
    }


def test_score_thresholds_are_reached_in_the_precision_of_the_scores():
    detections = [(0, BOX, 1, 0.7), (1, BOX, 2, 0.7), (1, FAR, 2, 0.69)]
    assert entries([], detections, score_threshold=0.7) == {(0, 1): 1, (0, 2): 1}
    by_class = [np.inf, 0.69, 0.0]
    assert entries([], detections, score_threshold=by_class) == {(0, 2): 2}


def test_without_anything_the_matrix_is_zero():
    assert not entries([], [])
    assert entries([(0, BOX, 2)], []) == {(2, 0): 1}


@pytest.mark.parametrize("iou_threshold", [0, -0.5, 1.1, float("nan")])
def test_impossible_iou_thresholds_are_refused(iou_threshold):
    with pytest.raises(ValueError, match="iou_threshold"):
        matrix([], [], iou_threshold=iou_threshold)


@pytest.mark.parametrize("score_threshold", [[0.5, 0.5], float("nan"), [0.1, 0.1, float("nan")]])
def test_impossible_score_thresholds_are_refused(score_threshold):
    with pytest.raises(ValueError, match="one number or 3"):
        matrix([], [], score_threshold=score_threshold)


# An independent reference: pair by pair, in exact arithmetic.


def reference_matrix(objects, detections, score_threshold, iou_threshold):
    kept = [k for k in range(len(detections.labels)) if detections.scores[k] >= score_threshold]
    pairs = []
    for k in kept:
        for n in range(len(objects.labels)):
            if objects.images[n] != detections.images[k]:
                continue
            iou = exact_iou(objects.boxes_xyxy[n], detections.boxes_xyxy[k])
            if iou >= iou_threshold:
                disagree = objects.labels[n] != detections.labels[k]
                pairs.append((-iou, -detections.scores[k], disagree, n, k))
    result = np.zeros((NUM_CLASSES + 1, NUM_CLASSES + 1), dtype=np.int64)
    found, answered = set(), set()
    for _, _, _, n, k in sorted(pairs):
        if k in answered or n in found:
            continue
        answered.add(k)
        if not objects.difficult[n]:
            found.add(n)
            result[objects.labels[n], detections.labels[k]] += 1
    for k in set(kept) - answered:
        result[0, detections.labels[k]] += 1
    for n in range(len(objects.labels)):
        if n not in found and not objects.difficult[n]:
            result[objects.labels[n], 0] += 1
    return result


@pytest.mark.parametrize("seed", range(300))
def test_equals_matching_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    objects, detections = random_tables(rng)
    score_threshold = float(rng.choice([0, 0.3, 0.6]))
    iou_threshold = float(rng.choice([0.125, 0.25, 0.5, 0.75]))
    result = confusion_matrix(
        objects,
        detections,
        NUM_CLASSES,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
    )
    expected = reference_matrix(objects, detections, score_threshold, Fraction(iou_threshold))
    assert result.dtype == np.int64
    assert result.tolist() == expected.tolist()


@pytest.mark.parametrize("pairs_at_once", [1, 7])
def test_the_size_of_the_chunks_changes_nothing(monkeypatch, pairs_at_once):
    scenes = [random_tables(np.random.default_rng(seed)) for seed in range(20)]
    before = [overlapping_pairs(*scene, 0.1) for scene in scenes]
    monkeypatch.setattr(confusion, "_PAIRS_AT_ONCE", pairs_at_once)
    for scene, expected in zip(scenes, before, strict=True):
        for now, then in zip(overlapping_pairs(*scene, 0.1), expected, strict=True):
            assert now.tolist() == then.tolist()


# Properties.

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.floats(0, 1), st.floats(0.05, 1))
@settings(deadline=None)
def test_rows_sum_to_objects_and_columns_to_detections(seed, score_threshold, iou_threshold):
    objects, detections = random_tables(np.random.default_rng(seed))
    thresholds = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    result = confusion_matrix(objects, detections, NUM_CLASSES, **thresholds)
    counted = np.bincount(objects.labels[~objects.difficult], minlength=NUM_CLASSES + 1)
    assert result[1:].sum(axis=1).tolist() == counted[1:].tolist()
    kept = detections.labels[detections.scores >= np.float32(score_threshold)]
    kept = np.bincount(kept, minlength=NUM_CLASSES + 1)
    assert (result.sum(axis=0)[1:] <= kept[1:]).all()
    assert result[0, 0] == 0
    ordinary = select(objects, ~objects.difficult)  # then no detection is left out
    result = confusion_matrix(ordinary, detections, NUM_CLASSES, **thresholds)
    assert result.sum(axis=0)[1:].tolist() == kept[1:].tolist()


@given(seeds)
@settings(deadline=None)
def test_the_order_of_pictures_and_detections_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    objects, detections = random_tables(rng)
    expected = confusion_matrix(objects, detections, NUM_CLASSES, score_threshold=0.2)
    position = rng.permutation(4)
    moved = renumbered(objects, position)
    shuffled = renumbered(detections, position)
    shuffled = select(shuffled, rng.permutation(len(shuffled.labels)))
    result = confusion_matrix(moved, shuffled, NUM_CLASSES, score_threshold=0.2)
    assert result.tolist() == expected.tolist()


@given(seeds)
@settings(deadline=None)
def test_perfect_detections_are_on_the_diagonal(seed):
    objects, _ = random_tables(np.random.default_rng(seed), distinct_boxes=True)
    perfect = detections_of(
        [
            (image, box, label, 0.5)
            for image, box, label in zip(
                objects.images, objects.boxes_xyxy, objects.labels, strict=True
            )
        ]
    )
    counted = np.bincount(objects.labels[~objects.difficult], minlength=NUM_CLASSES + 1)
    result = confusion_matrix(objects, perfect, NUM_CLASSES, score_threshold=0.5)
    assert result.tolist() == np.diag(counted).tolist()
