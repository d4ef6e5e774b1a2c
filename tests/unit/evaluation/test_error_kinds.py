from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tables import (
    CLASS_NAMES,
    NUM_CLASSES,
    detections_of,
    exact_iou,
    objects_of,
    random_tables,
    renumbered,
    select,
    with_an_object,
)

from ssd_dist.evaluation.assignment import assign
from ssd_dist.evaluation.error_kinds import KINDS, count_errors, map_lost
from ssd_dist.evaluation.options import ApOptions
from ssd_dist.evaluation.voc_ap import evaluate_tables

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]
TENTHS = {9: [0, 0, 9, 10], 8: [0, 0, 8, 10], 3: [0, 0, 3, 10], 1: [0, 0, 1, 10]}
"""IoU with BOX in tenths → a box."""


def counted(objects, detections, score_threshold=0.0):
    """{label: {kind: how many}} where there are any; label 0 is the sum."""
    counts = count_errors(
        objects_of(objects), detections_of(detections), NUM_CLASSES, score_threshold=score_threshold
    )
    assert list(counts) == list(range(NUM_CLASSES + 1))
    assert all(tuple(kinds) == KINDS for kinds in counts.values())
    some = {label: {k: n for k, n in kinds.items() if n} for label, kinds in counts.items()}
    return {label: kinds for label, kinds in some.items() if kinds}


@pytest.mark.parametrize(
    ("detection", "kinds"),
    [
        ((0, BOX, 1, 0.5), {1: {"correct": 1}}),
        ((0, BOX, 2, 0.5), {2: {"class": 1}}),
        ((0, TENTHS[3], 1, 0.5), {1: {"box": 1}}),
        ((0, TENTHS[1], 1, 0.5), {1: {"box": 1}}),  # 0.1 exactly
        ((0, TENTHS[3], 2, 0.5), {1: {"missed": 1}, 2: {"both": 1}}),
        ((0, [9, 0, 19, 10], 1, 0.5), {1: {"background": 1, "missed": 1}}),  # 10/190
        ((0, FAR, 2, 0.5), {1: {"missed": 1}, 2: {"background": 1}}),
        ((1, BOX, 1, 0.5), {1: {"background": 1, "missed": 1}}),  # in another picture
    ],
)
def test_one_detection_by_hand(detection, kinds):
    total = {}
    for of_label in kinds.values():
        total |= of_label
    assert counted([(0, BOX, 1)], [detection]) == {0: total, **kinds}


def test_the_second_on_an_object_is_a_duplicate():
    detections = [(0, TENTHS[8], 1, 0.9), (0, BOX, 1, 0.5)]
    assert counted([(0, BOX, 1)], detections)[1] == {"correct": 1, "duplicate": 1}


def test_a_box_error_comes_before_a_class_error_and_that_before_a_duplicate():
    # As in TIDE's code: 0.3 of an object of its class, all of one of another class.
    objects = [(0, TENTHS[3], 1), (0, BOX, 2)]
    assert counted(objects, [(0, BOX, 1, 0.5)]) == {
        0: {"box": 1, "missed": 1},
        1: {"box": 1},
        2: {"missed": 1},
    }
    objects = [(0, BOX, 1), (0, TENTHS[8], 2)]
    detections = [(0, BOX, 1, 0.9), (0, TENTHS[9], 1, 0.8)]
    assert counted(objects, detections) == {
        0: {"correct": 1, "class": 1},
        1: {"correct": 1, "class": 1},
    }


def test_difficult_objects_are_there_but_are_not_missed():
    objects = [(0, BOX, 1, True)]
    assert counted(objects, []) == {}
    assert counted(objects, [(0, BOX, 1, 0.5)]) == {}
    assert counted(objects, [(0, BOX, 2, 0.5)])[0] == {"class": 1}
    assert counted(objects, [(0, TENTHS[3], 1, 0.5)])[0] == {"box": 1}


def test_detections_below_the_threshold_are_not_looked_at():
    objects, detections = [(0, BOX, 1)], [(0, BOX, 1, 0.7), (0, FAR, 2, 0.3)]
    assert counted(objects, detections, 0.7)[0] == {"correct": 1}
    assert counted(objects, detections, [0.8, 0.3, 0.0])[0] == {"background": 1, "missed": 1}


@pytest.mark.parametrize("background_iou", [0, 0.5, 0.7, float("nan")])
def test_impossible_background_is_refused(background_iou):
    for function, more in ((count_errors, {"score_threshold": 0.0}), (map_lost, {})):
        with pytest.raises(ValueError, match="background_iou"):
            function(
                objects_of([(0, BOX, 1)]),
                detections_of([]),
                NUM_CLASSES,
                background_iou=background_iou,
                **more,
            )


@pytest.mark.parametrize("objects", [[], [(0, BOX, 1, True)]])
def test_nothing_can_be_lost_without_objects(objects):
    with pytest.raises(ValueError, match="no meaning"):
        map_lost(objects_of(objects), detections_of([(0, BOX, 1, 0.5)]), NUM_CLASSES)


NOTHING_LOST = dict.fromkeys(KINDS[1:], 0.0)


def lost(objects, detections):
    return map_lost(objects_of(objects), detections_of(detections), NUM_CLASSES)


@pytest.mark.parametrize(
    ("kind", "objects", "detections", "expected"),
    [
        # Without the false one above the true one precision is 1 instead of 1/2.
        ("background", [(0, BOX, 1)], [(0, FAR, 1, 0.9), (0, BOX, 1, 0.5)], 1 / 2),
        (
            "both",
            [(0, BOX, 1), (1, BOX, 2)],
            [(1, TENTHS[3], 1, 0.9), (0, BOX, 1, 0.5), (1, BOX, 2, 0.5)],
            1 / 4,
        ),
        # Found, twice, found, of two objects: precision 1 up to recall 0.5, then 2/3.
        (
            "duplicate",
            [(0, BOX, 1), (1, BOX, 1)],
            [(0, BOX, 1, 0.9), (0, BOX, 1, 0.8), (1, BOX, 1, 0.7)],
            5 / 11 / 3,
        ),
        ("box", [(0, BOX, 1)], [(0, TENTHS[3], 1, 0.9)], 1.0),
        # The better of the two becomes true and the other goes.
        ("box", [(0, BOX, 1)], [(0, TENTHS[3], 1, 0.8), (0, TENTHS[1], 1, 0.9)], 1.0),
        # The object has been found already: the error goes, instead of becoming a duplicate.
        ("box", [(0, BOX, 1)], [(0, TENTHS[3], 1, 0.9), (0, BOX, 1, 0.5)], 1 / 2),
        # Class 1: from 1/2 to 1; class 2: from 0 to 1.
        ("class", [(0, BOX, 1), (1, BOX, 2)], [(1, BOX, 1, 0.9), (0, BOX, 1, 0.5)], 3 / 4),
        # One of two is missed: 6/11 becomes 1.
        ("missed", [(0, BOX, 1), (1, BOX, 1)], [(0, BOX, 1, 0.5)], 5 / 11),
        # All of class 2 are missed: the mean is class 1's alone.
        ("missed", [(0, BOX, 1), (1, BOX, 2)], [(0, BOX, 1, 0.5)], 1 / 2),
        ("missed", [(0, BOX, 1)], [], 1.0),
    ],
)
def test_what_is_lost_by_hand(kind, objects, detections, expected):
    assert lost(objects, detections) == pytest.approx({**NOTHING_LOST, kind: expected}, abs=1e-15)


def test_errors_about_difficult_objects_are_taken_away():
    objects = [(0, BOX, 1, True), (1, BOX, 2)]
    detections = [(0, BOX, 2, 0.9), (1, BOX, 2, 0.5)]
    assert lost(objects, detections) == {**NOTHING_LOST, "class": 0.5}


# An independent reference: detection by detection, in exact arithmetic.


def reference_kinds(objects, detections):
    """The kind of every detection, None where it is ignored; the object that a class or box error
    is about, None elsewhere; and the missed objects."""
    ranked = sorted(range(len(detections.labels)), key=lambda k: -detections.scores[k])
    kinds, about = [None] * len(ranked), [None] * len(ranked)
    taken, seen = set(), set()
    for k in ranked:
        largest = {True: (Fraction(0), None), False: (Fraction(0), None)}
        for n in range(len(objects.labels)):
            if objects.images[n] == detections.images[k]:
                agree = bool(objects.labels[n] == detections.labels[k])
                iou = exact_iou(objects.boxes_xyxy[n], detections.boxes_xyxy[k])
                if iou > largest[agree][0]:
                    largest[agree] = (iou, n)
        (same, same_object), (other, other_object) = largest[True], largest[False]
        if same >= Fraction(1, 2) and objects.difficult[same_object]:
            continue
        if same >= Fraction(1, 2) and same_object not in taken:
            kinds[k] = "correct"
            taken.add(same_object)
        elif Fraction(1, 10) <= same < Fraction(1, 2):
            kinds[k], about[k] = "box", same_object
        elif other >= Fraction(1, 2):
            kinds[k], about[k] = "class", other_object
        elif same >= Fraction(1, 2):
            kinds[k] = "duplicate"
        elif other >= Fraction(1, 10):
            kinds[k] = "both"
        else:
            kinds[k] = "background"
        seen.add(about[k])
    missed = [
        n
        for n in range(len(objects.labels))
        if not objects.difficult[n] and n not in taken and n not in seen
    ]
    about = [n if n is not None and n not in taken else None for n in about]
    return kinds, about, missed


def reference_counts(objects, detections):
    kinds, _, missed = reference_kinds(objects, detections)
    counts = {label: dict.fromkeys(KINDS, 0) for label in range(NUM_CLASSES + 1)}
    verdicts = [(label, kind) for label, kind in zip(detections.labels, kinds, strict=True) if kind]
    for label, kind in verdicts + [(objects.labels[n], "missed") for n in missed]:
        counts[label][kind] += 1
        counts[0][kind] += 1
    return counts


def repaired(objects, detections, kind):
    """The split as it would be without one kind of error; boxes and labels really change."""
    kinds, about, missed = reference_kinds(objects, detections)
    if kind == "missed":
        return select(objects, np.setdiff1d(np.arange(len(objects.labels)), missed)), detections
    kept, claimed = [], set()
    changed = select(detections, np.arange(len(kinds)))
    for k in sorted(range(len(kinds)), key=lambda k: -detections.scores[k]):
        if kinds[k] != kind:
            kept.append(k)
        elif about[k] is not None and about[k] not in claimed and not objects.difficult[about[k]]:
            claimed.add(about[k])
            kept.append(k)
            changed.labels[k] = objects.labels[about[k]]
            changed.boxes_xyxy[k] = objects.boxes_xyxy[about[k]]
    return objects, select(changed, sorted(kept))


@pytest.mark.parametrize("seed", range(300))
def test_counts_equal_going_through_the_detections_one_by_one(seed):
    rng = np.random.default_rng(seed)
    objects, detections = random_tables(rng)
    score_threshold = float(rng.choice([0, 0.3, 0.6]))
    counts = count_errors(objects, detections, NUM_CLASSES, score_threshold=score_threshold)
    kept = select(detections, detections.scores >= score_threshold)
    assert counts == reference_counts(objects, kept)


@pytest.mark.parametrize("seed", range(150))
def test_what_is_lost_equals_evaluating_the_repaired_split(seed):
    # No two objects in one place: a repaired box would not know which of them it belongs to.
    rng = np.random.default_rng(seed)
    objects, detections = with_an_object(*random_tables(rng, distinct_boxes=True))
    now = evaluate_tables(objects, detections, CLASS_NAMES).map_11pt
    expected = {}
    for kind in KINDS[1:]:
        scene = repaired(objects, detections, kind)
        if scene[0].difficult.all():
            expected[kind] = 1 - now
        else:
            expected[kind] = evaluate_tables(*scene, CLASS_NAMES).map_11pt - now
    assert map_lost(objects, detections, NUM_CLASSES) == expected


# Properties.

seeds = st.integers(0, 2**32 - 1)
options = st.builds(
    ApOptions,
    iou_threshold=st.sampled_from([0.25, 0.5, 0.75]),
    strict_iou=st.booleans(),
    inclusive_pixels=st.booleans(),
    count_difficult=st.booleans(),
)


@given(seeds, options)
@settings(deadline=None)
def test_every_false_positive_has_one_kind(seed, options):
    objects, detections = random_tables(np.random.default_rng(seed))
    counts = count_errors(objects, detections, NUM_CLASSES, score_threshold=0.0, options=options)
    verdict = assign(objects, detections, options=options)
    is_false = ~verdict.true_positive & ~verdict.ignored
    for label in range(1, NUM_CLASSES + 1):
        own = detections.labels == label
        assert counts[label]["correct"] == (verdict.true_positive & own).sum()
        assert sum(counts[label][kind] for kind in KINDS[1:-1]) == (is_false & own).sum()
        can_be_found = (objects.labels == label) & (~objects.difficult | options.count_difficult)
        assert counts[label]["correct"] + counts[label]["missed"] <= can_be_found.sum()
    assert counts[0] == {
        kind: sum(counts[label][kind] for label in range(1, NUM_CLASSES + 1)) for kind in KINDS
    }


@given(seeds, options)
@settings(deadline=None)
def test_no_repair_costs_anything(seed, options):
    objects, detections = with_an_object(*random_tables(np.random.default_rng(seed)))
    now = evaluate_tables(objects, detections, CLASS_NAMES, options=options).map_11pt
    for value in map_lost(objects, detections, NUM_CLASSES, options=options).values():
        assert 0 <= value <= 1 - now


@given(seeds)
@settings(deadline=None)
def test_the_order_of_pictures_and_detections_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    objects, detections = with_an_object(*random_tables(rng))
    position = rng.permutation(4)
    moved, shuffled = renumbered(objects, position), renumbered(detections, position)
    shuffled = select(shuffled, rng.permutation(len(shuffled.labels)))
    expected = count_errors(objects, detections, NUM_CLASSES, score_threshold=0.2)
    assert count_errors(moved, shuffled, NUM_CLASSES, score_threshold=0.2) == expected
    expected = map_lost(objects, detections, NUM_CLASSES)
    assert map_lost(moved, shuffled, NUM_CLASSES) == expected
