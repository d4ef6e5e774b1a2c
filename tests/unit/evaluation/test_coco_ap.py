import numpy as np
import pytest
from random_tables import CLASS_NAMES, detections_of, objects_of, pictures_of

from ssd_dist.evaluation.coco_ap import NAMES, coco_summary
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.structures import Annotation, Detections

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def summary(objects, detections, num_images=4):
    scene = pictures_of(objects_of(objects), detections_of(detections), range(num_images))
    return coco_summary(*scene, CLASS_NAMES)


def test_perfect_detections_of_small_objects():
    # One object and one detection: number 1 of each, which as number 0 would not count.
    result = summary([(0, BOX, 1)], [(0, BOX, 1, 0.5)])
    assert tuple(result) == NAMES
    assert result == {
        name: None if name.endswith(("medium", "large")) else pytest.approx(1.0) for name in NAMES
    }


def test_a_box_is_found_up_to_its_overlap():
    # IoU 0.62: found at 0.50, 0.55 and 0.60, three of the ten thresholds.
    result = summary([(0, [0, 0, 100, 100], 1)], [(0, [0, 0, 62, 100], 1, 0.5)])
    assert (result["AP"], result["AP_large"]) == (pytest.approx(0.3), pytest.approx(0.3))
    assert result["AP50"] == pytest.approx(1.0)
    assert result["AP75"] == 0.0
    assert [result[name] for name in ("AR_1", "AR_100", "AR_large")] == [pytest.approx(0.3)] * 3
    assert result["AP_small"] is result["AR_medium"] is None


def test_ar_1_and_10_look_at_so_many_detections_of_a_class_in_a_picture():
    objects = [(0, [30 * i, 0, 30 * i + 20, 20], 1) for i in range(12)]
    detections = [(0, box, label, 0.9 - 0.01 * i) for i, (_, box, label) in enumerate(objects)]
    result = summary(objects, detections)
    assert result["AR_1"] == pytest.approx(1 / 12)
    assert result["AR_10"] == pytest.approx(10 / 12)
    assert result["AR_100"] == pytest.approx(1.0)


def test_the_mean_is_over_the_classes_that_occur():
    objects = [(0, BOX, 1), (1, BOX, 3)]
    assert summary(objects, [(0, BOX, 1, 0.5), (0, BOX, 2, 0.9)])["AP"] == pytest.approx(0.5)


def test_difficult_objects_count_neither_way_however_often_found():
    objects = [(0, BOX, 1, True), (1, BOX, 1)]
    on_the_difficult = [(0, BOX, 1, 0.9), (0, [0, 0, 9, 10], 1, 0.8), (0, [2, 2, 4, 4], 1, 0.7)]
    result = summary(objects, [*on_the_difficult, (1, BOX, 1, 0.5)])
    assert (result["AP"], result["AR_100"]) == (pytest.approx(1.0), 1.0)


@pytest.mark.parametrize("detections", [[], [(0, BOX, 1, 0.5)]])
@pytest.mark.parametrize("objects", [[], [(0, BOX, 1, True)]])
def test_without_objects_nothing_has_a_value(objects, detections):
    assert summary(objects, detections) == dict.fromkeys(NAMES)


def test_without_detections_all_is_zero():
    result = summary([(0, BOX, 1)], [])
    assert {result[name] for name in NAMES if result[name] is not None} == {0.0}
    assert result["AP"] == 0.0


def test_it_prints_nothing(capfd):
    summary([(0, BOX, 1)], [(0, BOX, 1, 0.5)])
    assert capfd.readouterr() == ("", "")


def test_any_image_ids_in_any_order():
    boxes, labels = np.array([BOX], dtype=np.float32), np.array([1])
    annotations = [
        Annotation(name, 20, 20, boxes, labels, np.zeros(1, bool)) for name in ("b", "0", "a")
    ]
    found = [Detections("a", boxes, labels, np.array([0.5], dtype=np.float32))]
    assert coco_summary(annotations, found, ["x"])["AR_100"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="image id 'c'"):
        coco_summary(annotations, [Detections("c", boxes, labels, np.ones(1))], ["x"])


@pytest.mark.parametrize("seed", range(20))
def test_ap50_equals_101_points_of_our_own_curve(seed):
    # With one object of a class in a picture both matchings agree: the best detection, by score.
    rng = np.random.default_rng(seed)
    objects, detections = [(0, BOX, 1)], []
    for image in range(12):
        for label in (1, 2, 3):
            corner = rng.uniform(0, 50, 2)
            box = np.concatenate([corner, corner + rng.uniform(10, 40, 2)])
            if rng.random() < 0.6 and image:
                objects.append((image, box, label))
            for _ in range(rng.integers(0, 4)):
                shift = np.tile(rng.normal(0, 5, 2), 2)
                detections.append((image, box + shift, label, rng.random()))
    scene = pictures_of(objects_of(objects), detections_of(detections), range(12))
    result = evaluate_voc(*scene, CLASS_NAMES)
    aps = []
    for curve in result.curves.values():
        reaches = curve.recall >= np.linspace(0, 1, 101)[:, None]  # COCO compares floats
        aps.append(np.where(reaches, curve.precision, 0).max(axis=1, initial=0).mean())
    assert coco_summary(*scene, CLASS_NAMES)["AP50"] == pytest.approx(np.mean(aps), abs=1e-9)
