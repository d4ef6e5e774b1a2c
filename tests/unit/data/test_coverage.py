"""Which objects no prior can match: by hand, and by the matching itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssd_dist.config import ModelConfig
from ssd_dist.data.coverage import (
    best_prior_iou,
    by_class,
    by_coco_size,
    by_input_side,
    coverage_json,
    measure_coverage,
)
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.model.ssd import build_model
from ssd_dist.ops.matching import match_priors
from ssd_dist.structures import Annotation

# Two squares, of half the side in the middle and of a tenth in the left top corner.
PRIORS = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.05, 0.05, 0.1, 0.1]])


def annotation(width, height, boxes_xyxy, labels, difficult=None):
    return Annotation(
        image_id="a",
        width=width,
        height=height,
        boxes_xyxy=np.array(boxes_xyxy, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        difficult=np.array(difficult or [False] * len(labels), bool),
    )


@pytest.fixture
def measured():
    pictures = [
        annotation(200, 100, [(50, 25, 150, 75), (0, 0, 10, 10)], [1, 2]),
        annotation(200, 100, [], []),
        annotation(100, 100, [(60, 60, 98, 98), (0, 0, 5, 5), (0, 0, 9, 9)], [1, 1, 2], [0, 1, 0]),
    ]
    return measure_coverage(pictures, PRIORS, image_size=64)


def test_columns_by_hand(measured):
    # Of the prior's own shape; half as wide as the second; (15·15) / (50² + 38² - 15²); 81 / 100.
    expected = [1, 0.5, 225 / (2500 + 1444 - 225), 0.81]
    np.testing.assert_allclose(measured.best_iou, expected, rtol=1e-6)
    assert measured.unmatched.tolist() == [False, False, True, False]
    np.testing.assert_allclose(measured.picture_side, [5000**0.5, 10, 38, 9], rtol=1e-6)
    # The network's input is square: 100 x 50 of 200 x 100 pixels are 32 x 32 of 64.
    expected = [32, 64 * (0.05 * 0.1) ** 0.5, 0.38 * 64, 0.09 * 64]
    np.testing.assert_allclose(measured.input_side, expected, rtol=1e-6)
    assert measured.labels.tolist() == [1, 2, 1, 2]
    assert measured.pictures.tolist() == [0, 0, 2, 2]
    assert measured.objects.tolist() == [0, 1, 0, 2]  # the difficult one is no target


def test_tables_by_hand(measured):
    small, medium, large, everything = by_coco_size(measured)
    assert (small.num_objects, small.num_unmatched) == (2, 0)
    assert small.mean_best_iou == pytest.approx((0.5 + 0.81) / 2)
    assert (medium.num_objects, medium.num_unmatched) == (2, 1)
    assert (large.num_objects, large.num_unmatched, large.mean_best_iou) == (0, 0, None)
    assert (everything.num_objects, everything.num_unmatched) == (4, 1)
    sides = {row.name: (row.num_objects, row.num_unmatched) for row in by_input_side(measured)}
    assert sides == {
        "below 8 px": (2, 0),
        "8 to 16 px": (0, 0),
        "16 to 32 px": (1, 1),
        "32 px or more": (1, 0),
    }
    classes = [(row.name, row.num_objects, row.num_unmatched) for row in by_class(measured, "xyz")]
    assert classes == [("x", 2, 1), ("y", 2, 0), ("z", 0, 0)]


def test_json_names_every_unmatched_object(measured):
    content = coverage_json(measured, ("x", "y"), ["p", "q", "r"])
    assert (content["num_priors"], content["image_size"], content["iou_threshold"]) == (2, 64, 0.5)
    (lost,) = content["unmatched"]
    assert (lost["picture"], lost["object"], lost["class"]) == ("r", 0, "x")
    assert lost["best_iou"] == pytest.approx(225 / 3719)


def test_unmatched_are_those_that_matching_gives_only_their_own_prior():
    """With each picture's objects one by one, so that none takes another's prior."""
    split = synthetic_split("val", num_images=30)
    model = build_model(ModelConfig(backbone="resnet18", min_scale=0.35), 5, load_weights=False)
    coverage = measure_coverage(split.annotations, model.priors_cxcywh, image_size=224)
    for i, (picture, place) in enumerate(zip(coverage.pictures, coverage.objects, strict=True)):
        each = split.annotations[picture]
        sides = np.array([each.width, each.height] * 2, np.float32)
        boxes_xyxy = torch.from_numpy(each.boxes_xyxy[[place]] / sides)[None]
        one = torch.ones(1, 1, dtype=torch.int64)
        targets = match_priors(boxes_xyxy, one, one > 1, model.priors_cxcywh)
        num_positive = int((targets.labels > 0).sum())
        assert num_positive >= 1
        if coverage.unmatched[i]:
            assert num_positive == 1
    assert len(coverage.labels) == sum(len(each.labels) for each in split.annotations)
    assert coverage.unmatched.any()
    assert not coverage.unmatched.all()


def test_parts_change_nothing(monkeypatch):
    boxes_xyxy = torch.rand(50, 4).sort(dim=1).values
    whole = best_prior_iou(boxes_xyxy, PRIORS)
    monkeypatch.setattr("ssd_dist.data.coverage._PAIRS_AT_ONCE", 7)
    assert torch.equal(best_prior_iou(boxes_xyxy, PRIORS), whole)


@pytest.mark.parametrize("pictures", [[], [annotation(8, 8, [], [])]])
def test_nothing_to_cover(pictures):
    coverage = measure_coverage(pictures, PRIORS, image_size=64)
    assert [row.num_objects for row in by_coco_size(coverage)] == [0, 0, 0, 0]
    assert coverage_json(coverage, ("x",), ["p"])["unmatched"] == []
