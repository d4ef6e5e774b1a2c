from fractions import Fraction

import numpy as np
import pytest
from random_tables import (
    CLASS_NAMES,
    detections_of,
    objects_of,
    pictures_of,
    random_tables,
    select,
    with_an_object,
)

from ssd_dist.evaluation.operating_point import OperatingPoint, best_f1
from ssd_dist.evaluation.voc_ap import evaluate_voc

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def best(objects, detections, num_images=4):
    scene = pictures_of(objects_of(objects), detections_of(detections), range(num_images))
    return best_f1(evaluate_voc(*scene, CLASS_NAMES))


def test_the_largest_f1_by_hand():
    # Found, false, found, false, of three objects: F1 = 2/4, 2/5, 4/6, 4/7.
    objects = [(0, BOX, 1), (1, BOX, 1), (2, BOX, 1)]
    detections = [(0, BOX, 1, 0.9), (0, FAR, 1, 0.7), (1, BOX, 1, 0.5), (1, FAR, 1, 0.25)]
    point = best(objects, detections)["a"]
    assert point == OperatingPoint(threshold=0.5, precision=2 / 3, recall=2 / 3, f1=2 / 3)


def test_of_equal_f1_the_highest_threshold():
    # Found, false, false, found, of two objects: F1 = 2/3, 2/4, 2/5, 4/6.
    objects = [(0, BOX, 1), (1, BOX, 1)]
    detections = [(0, BOX, 1, 0.875), (0, FAR, 1, 0.75), (1, FAR, 1, 0.5), (1, BOX, 1, 0.25)]
    assert best(objects, detections)["a"] == OperatingPoint(0.875, 1.0, 0.5, 2 / 3)


def test_a_threshold_does_not_cut_between_equal_scores():
    # The true one comes first, but the false one of the same score cannot be left out.
    detections = [(0, BOX, 1, 0.5), (0, FAR, 1, 0.5)]
    assert best([(0, BOX, 1)], detections)["a"] == OperatingPoint(0.5, 0.5, 1.0, 2 / 3)


def test_classes_without_a_best_threshold():
    objects = [(0, BOX, 1), (1, BOX, 2), (2, BOX, 3, True)]
    detections = [(0, BOX, 1, 0.5), (1, FAR, 2, 0.5), (2, BOX, 3, 0.5)]
    assert best(objects, detections) == {
        "a": OperatingPoint(0.5, 1.0, 1.0, 1.0),
        "b": None,  # nothing of it is found
        "c": None,  # no object that counts
    }
    assert best([(0, BOX, 1)], []) == {"a": None, "b": None, "c": None}


@pytest.mark.parametrize("seed", range(60))
def test_equals_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    objects, detections = with_an_object(*random_tables(rng))
    if seed % 2:  # with many equal scores
        detections.scores[:] = np.ceil(detections.scores * 4) / 4
    result = best_f1(evaluate_voc(*pictures_of(objects, detections, range(4)), CLASS_NAMES))
    best_there_is = dict.fromkeys(CLASS_NAMES)
    for threshold in np.unique(detections.scores)[::-1]:
        kept = select(detections, detections.scores >= threshold)
        there = evaluate_voc(*pictures_of(objects, kept, range(4)), CLASS_NAMES)
        for name, curve in there.curves.items():
            if not len(curve.recall):
                continue
            num_true = round(curve.recall[-1] * there.num_objects[name])
            f1 = Fraction(2 * num_true, there.num_objects[name] + len(curve.recall))
            if f1 > (best_there_is[name][0] if best_there_is[name] else 0):
                best_there_is[name] = (f1, threshold, curve.precision[-1], curve.recall[-1])
    for name, point in result.items():
        if best_there_is[name] is None:
            assert point is None
        else:
            f1, threshold, precision, recall = best_there_is[name]
            assert point == OperatingPoint(threshold, precision, recall, float(f1))
