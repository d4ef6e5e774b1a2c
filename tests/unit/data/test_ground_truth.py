"""Annotations without their pictures, of either kind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ssd_dist.data.readers import open_ground_truth, open_split


def test_voc_needs_no_pictures(voc_root):
    with_pictures = open_split(voc_root, "train")
    shutil.rmtree(voc_root / "JPEGImages")
    truth = open_ground_truth(voc_root, "train")
    assert truth.source == f"{voc_root}, split 'train'"
    assert truth.class_names == with_pictures.class_names == ("bird", "cat", "dog")
    assert truth.category_ids == (1, 2, 3)
    assert truth.problems == ()
    for mine, theirs in zip(truth.annotations, with_pictures.annotations, strict=True):
        assert mine.image_id == theirs.image_id
        assert (mine.width, mine.height) == (theirs.width, theirs.height) == (40, 30)
        assert mine.boxes_xyxy.dtype == np.float64
        np.testing.assert_array_equal(mine.boxes_xyxy, theirs.boxes_xyxy)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.difficult, theirs.difficult)


def test_voc_boxes_stay_as_they_stand(write_voc):
    root = write_voc({"test": {"a": [("dog", -3, 5, 50.1, 31), ("cat", 45, 1, 60, 9)]}})
    truth = open_ground_truth(root, "test")
    np.testing.assert_array_equal(
        truth.annotations[0].boxes_xyxy, [[-3, 5, 50.1, 31], [45, 1, 60, 9]]
    )
    assert truth.problems == ()


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((7, 9, 7, 9), "no area"),
        ((7, 9, 8, 9), "no area"),
        ((20, 9, 10, 15), "its corners are swapped"),
    ],
)
def test_voc_box_without_area_is_dropped_and_told(write_voc, box, why):
    root = write_voc({"test": {"a": [("dog", *box), ("cat", 1, 1, 9, 9)]}})
    truth = open_ground_truth(root, "test")
    assert truth.annotations[0].labels.tolist() == [1]
    (problem,) = truth.problems
    assert problem.endswith(f"dropped: {why}")
    assert "a.xml: 'dog' box" in problem


@pytest.mark.parametrize("size", ["", "<size><width>?</width><height></height></size>"])
def test_voc_without_a_size(voc_root, size):
    path = voc_root / "Annotations/d.xml"
    path.write_text(
        path.read_text().replace("<size><width>40</width><height>30</height></size>", size)
    )
    (annotation,) = open_ground_truth(voc_root, "test").annotations
    assert (annotation.width, annotation.height) == (0, 0)
    np.testing.assert_array_equal(annotation.boxes_xyxy, [[2, 2, 30, 20]])


def test_voc_errors(voc_root):
    with pytest.raises(ValueError, match=r"no split 'val'.*there are: test, train"):
        open_ground_truth(voc_root, "val")
    with pytest.raises(ValueError, match=r"holds no data set.*did you mean .*voc\?"):
        open_ground_truth(voc_root.parent, "test")
    (voc_root / "Annotations/d.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"d\.xml"):
        open_ground_truth(voc_root, "test")


def test_a_file_is_coco(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1}],
                "annotations": [{"image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 1]}],
                "categories": [{"id": 5, "name": "x"}],
            }
        )
    )
    assert open_ground_truth(path, "any").category_ids == (5,)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ground truth .*nowhere does not exist; give"):
        open_ground_truth(tmp_path / "nowhere", "test")
