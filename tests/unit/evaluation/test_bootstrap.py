from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_tables import (
    CLASS_NAMES,
    NUM_CLASSES,
    detections_of,
    objects_of,
    pictures_of,
    random_tables,
    renumbered,
    with_an_object,
)

from ssd_dist.evaluation import bootstrap
from ssd_dist.evaluation.bootstrap import Interval, _num_needed, bias_corrected, bootstrap_map
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import DetectionTable, ObjectTable
from ssd_dist.evaluation.voc_ap import evaluate_tables, evaluate_voc

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def test_pictures_drawn_by_hand():
    # Picture 0 alone gives AP 1, picture 1 alone 0; both together 6/11: found, false, missed of
    # two objects has precision 1 up to recall 0.5.
    objects = objects_of([(0, BOX, 1), (1, BOX, 1)])
    detections = detections_of([(0, BOX, 1, 0.9), (1, FAR, 1, 0.8)])
    values = {(0, 0): 1.0, (0, 1): 6 / 11, (1, 0): 6 / 11, (1, 1): 0.0}
    for seed in range(20):
        drawn = tuple(np.random.default_rng(seed).integers(2, size=2).tolist())
        interval = bootstrap_map(objects, detections, NUM_CLASSES, num_resamples=1, seed=seed)
        assert interval == Interval(min(values[drawn], 6 / 11), max(values[drawn], 6 / 11))
    # A quarter of the resamples has 0 and a quarter has 1: both within the middle 95 %.
    assert bootstrap_map(objects, detections, NUM_CLASSES) == Interval(0.0, 1.0)


def test_classes_absent_from_a_resample_are_left_out_of_its_mean():
    objects = objects_of([(0, BOX, 1), (1, BOX, 2)])
    detections = detections_of([(0, BOX, 1, 0.9), (1, BOX, 2, 0.9)])
    assert bootstrap_map(objects, detections, NUM_CLASSES) == Interval(1.0, 1.0)


def test_resamples_without_objects_are_left_out():
    objects = objects_of([(0, BOX, 1), (1, BOX, 1, True)])
    detections = detections_of([(0, BOX, 1, 0.9), (1, FAR, 1, 0.5)])
    assert bootstrap_map(objects, detections, NUM_CLASSES) == Interval(1.0, 1.0)


@pytest.mark.parametrize("detections", [[], [(0, FAR, 1, 0.5)], [(0, BOX, 2, 0.5)]])
def test_nothing_found(detections):
    interval = bootstrap_map(objects_of([(0, BOX, 1)]), detections_of(detections), NUM_CLASSES)
    assert interval == Interval(0.0, 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_pictures_with_nothing_in_them_are_drawn_too(seed):
    objects, detections = objects_of([(7, BOX, 1)]), detections_of([(7, BOX, 1, 0.5)])
    settings = {"num_resamples": 1, "seed": seed, "num_images": 30}
    if 7 in np.random.default_rng(seed).integers(30, size=30):
        assert bootstrap_map(objects, detections, NUM_CLASSES, **settings) == Interval(1.0, 1.0)
    else:
        with pytest.raises(ValueError, match="none of the 1 resamples has an object"):
            bootstrap_map(objects, detections, NUM_CLASSES, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_resamples": 0}, "num_resamples must be at least 1, not 0"),
        ({"num_images": 3}, "num_images is 3, but the tables speak of 4 pictures"),
    ],
)
def test_mistakes_are_named(changes, message):
    objects, detections = objects_of([(0, BOX, 1)]), detections_of([(3, BOX, 1, 0.5)])
    with pytest.raises(ValueError, match=message):
        bootstrap_map(objects, detections, NUM_CLASSES, **changes)


@pytest.mark.parametrize("objects", [[], [(0, BOX, 1, True)]])
def test_no_object_to_be_found(objects):
    with pytest.raises(ValueError, match="no meaning"):
        bootstrap_map(objects_of(objects), detections_of([(0, BOX, 1, 0.5)]), NUM_CLASSES)


@pytest.mark.parametrize("recall_levels", ["exact", "arange", "matlab"])
def test_the_fewest_that_reach_a_level(recall_levels):
    levels = {
        "exact": [Fraction(i, 10) for i in range(11)],
        "arange": np.linspace(0, 1, 11),
        "matlab": [0.0, 0.1, 0.2, 3 * 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    }[recall_levels]
    options = ApOptions(recall_levels=recall_levels)
    for n in range(1, 121):
        recalls = [Fraction(t, n) if recall_levels == "exact" else t / n for t in range(n + 2)]
        fewest = [next(t for t, r in enumerate(recalls) if r >= level) for level in levels]
        assert _num_needed(np.array([n]), options).tolist() == [fewest]


# The reference: the split with its pictures really repeated, evaluated anew each time.

OPTIONS = {
    **PRESETS,
    "difficult counted": ApOptions(count_difficult=True),
    "IoU 0.75": ApOptions(iou_threshold=0.75),
    "mean over all": ApOptions(mean_over="all"),
}


def reference_interval(objects, detections, options, num_resamples, seed, num_images):
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(num_resamples):
        drawn = rng.integers(num_images, size=num_images)
        annotations, found = pictures_of(objects, detections, drawn)
        counts_difficult = options.count_difficult or options.difficult_in_recall
        if any((~a.difficult | counts_difficult).any() for a in annotations):
            result = evaluate_voc(annotations, found, CLASS_NAMES, options=options)
            maps.append(result.map_11pt)
    whole = pictures_of(objects, detections, range(num_images))
    return bias_corrected(
        np.array(maps), evaluate_voc(*whole, CLASS_NAMES, options=options).map_11pt
    )


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_evaluating_the_split_with_its_pictures_repeated(name, seed):
    objects, detections = with_an_object(*random_tables(np.random.default_rng(seed), num_images=6))
    settings = {"num_resamples": 25, "seed": seed, "num_images": 7}
    expected = reference_interval(objects, detections, OPTIONS[name], **settings)
    interval = bootstrap_map(objects, detections, NUM_CLASSES, options=OPTIONS[name], **settings)
    assert interval == expected


# The correction.


def test_without_bias_the_interval_is_the_middle_95_percent():
    values = np.random.default_rng(0).permutation(np.linspace(0, 1, 1001))
    assert bias_corrected(values, 0.5) == pytest.approx((0.025, 0.975))


def test_the_quantiles_move_by_twice_the_bias():
    """A fifth below: z0 = -0.8416, and Φ(-3.6432), Φ(0.2767) by a table."""
    values = np.arange(100_000) / 100_000
    low, high = bias_corrected(values, 0.2)
    assert low == pytest.approx(0.000135, abs=2e-5)
    assert high == pytest.approx(0.6090, abs=1e-4)
    mirrored = bias_corrected(-values, -0.2)
    assert mirrored == pytest.approx((-high, -low), abs=3e-5)


def test_equal_values_count_half():
    assert bias_corrected(np.array([0.0, 0.5, 0.5, 1.0]), 0.5) == pytest.approx((0.0375, 0.9625))
    assert bias_corrected(np.full(9, 0.3), 0.3) == Interval(0.3, 0.3)


@pytest.mark.parametrize("estimate", [-1.0, 2.0])
def test_an_estimate_beside_all_values_is_an_end(estimate):
    low, high = bias_corrected(np.linspace(0, 1, 50), estimate)
    assert (low, high)[estimate > 0] == estimate
    assert low < high


def draw_split(rng, num_images):
    """A good detector's pictures: 3 objects of 5 classes on average, nearly all found, with a tail
    of false detections few of which have high scores."""
    counts = rng.poisson(3, num_images)
    images = np.repeat(np.arange(num_images), counts)
    num_objects = len(images)
    x = 50.0 * (np.arange(num_objects) - np.repeat(np.cumsum(counts) - counts, counts))
    boxes = np.stack([x, 0 * x, x + 40, 0 * x + 40], axis=1)
    labels = rng.integers(1, 6, num_objects)
    is_sure = rng.random(num_objects) < 0.9
    scores = np.where(is_sure, rng.beta(8, 2, num_objects), rng.beta(1.2, 8, num_objects))
    false_images = np.repeat(np.arange(num_images), rng.poisson(8, num_images))
    num_false = len(false_images)
    is_sure = rng.random(num_false) < 0.03
    false_scores = np.where(is_sure, rng.beta(5, 5, num_false), rng.beta(1, 12, num_false))
    found = DetectionTable(
        images=np.concatenate([images, false_images]),
        boxes_xyxy=np.concatenate([boxes, np.full((num_false, 4), [2000, 0, 2040, 40])]),
        labels=np.concatenate([labels, rng.integers(1, 6, num_false)]),
        scores=np.concatenate([scores, false_scores]),
    )
    order = np.argsort(found.images, kind="stable")
    return (
        ObjectTable(images, boxes, labels, np.zeros(num_objects, dtype=bool)),
        DetectionTable(
            *(c[order] for c in (found.images, found.boxes_xyxy, found.labels, found.scores))
        ),
    )


@pytest.mark.parametrize(
    ("num_images", "num_splits", "most_missed"), [(50, 120, 0.18), (200, 60, 0.12)]
)
def test_how_often_the_truth_is_outside_the_interval(
    monkeypatch, num_images, num_splits, most_missed
):
    """On 50 pictures the plain percentiles lie above it in a fifth of the splits, the corrected
    ones in a tenth; on 200 both do what they should."""
    plain = []

    def both(values, estimate):
        plain.append(Interval(*np.quantile(values, [0.025, 0.975])))
        return bias_corrected(values, estimate)

    monkeypatch.setattr(bootstrap, "bias_corrected", both)
    rng = np.random.default_rng(0)
    names = [str(label) for label in range(1, 6)]
    truth = evaluate_tables(*draw_split(rng, 30_000), names).map_11pt
    corrected = [
        bootstrap_map(*draw_split(rng, num_images), 5, num_images=num_images, num_resamples=150)
        for _ in range(num_splits)
    ]
    missed = {
        name: (
            np.mean([truth < interval.low for interval in intervals]),
            np.mean([truth > interval.high for interval in intervals]),
        )
        for name, intervals in {"plain": plain, "corrected": corrected}.items()
    }
    assert sum(missed["corrected"]) < most_missed
    if num_images == 50:
        assert sum(missed["corrected"]) < 0.75 * sum(missed["plain"])


# Properties.

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(sorted(OPTIONS)))
@settings(deadline=None)
def test_of_one_picture_every_resample_is_the_split_itself(seed, name):
    objects, detections = random_tables(np.random.default_rng(seed))
    objects, detections = (renumbered(table, [0] * 4) for table in (objects, detections))
    options = OPTIONS[name]
    counts_difficult = options.count_difficult or options.difficult_in_recall
    assume((~objects.difficult | counts_difficult).any())
    value = evaluate_voc(
        *pictures_of(objects, detections, [0]), CLASS_NAMES, options=options
    ).map_11pt
    interval = bootstrap_map(objects, detections, NUM_CLASSES, options=options, num_resamples=2)
    assert interval == Interval(value, value)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_the_interval_lies_between_0_and_1_and_is_the_same_again(seed):
    objects, detections = with_an_object(*random_tables(np.random.default_rng(seed)))
    first, again = (
        bootstrap_map(objects, detections, NUM_CLASSES, num_resamples=30, seed=seed)
        for _ in range(2)
    )
    assert first == again
    assert 0 <= first.low <= first.high <= 1
