"""The COCO reader: values by hand, and a rule for every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssd_dist.data.coco import read_coco


def content() -> dict[str, Any]:
    """Three pictures out of order, category ids with gaps and out of order, a crowd."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 30, "width": 640, "height": 480, "file_name": "c.jpg"},
            {"id": 7, "width": 100, "height": 50, "file_name": "a.jpg"},
            {"id": 9, "file_name": "b.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 44, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 3, "bbox": [0.1, 0.2, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [-4, 0, 200, 9], "area": 5},
        ],
        "categories": [{"id": 44, "name": "bottle"}, {"id": 3, "name": "car"}],
    }


@pytest.fixture
def write(tmp_path):
    def write(file: Any) -> Path:
        path = tmp_path / "gt.json"
        path.write_text(file if isinstance(file, str) else json.dumps(file))
        return path

    return write


def test_what_stands_in_the_file_is_what_comes_out(write):
    path = write(content())
    truth = read_coco(path)
    assert truth.source == str(path)
    assert truth.class_names == ("car", "bottle")
    assert truth.category_ids == (3, 44)
    assert truth.problems == ()
    c, a, b = truth.annotations
    assert [x.image_id for x in (c, a, b)] == ["30", "7", "9"]
    assert [(x.width, x.height) for x in (c, a, b)] == [(640, 480), (100, 50), (0, 0)]
    np.testing.assert_array_equal(c.boxes_xyxy, [[0.1, 0.2, 5.1, 5.2]])
    assert c.labels.tolist() == [1]
    assert c.difficult.tolist() == [True]
    # As they stand: what leaves the picture is not clipped.
    np.testing.assert_array_equal(a.boxes_xyxy, [[1, 2, 11, 22], [-4, 0, 196, 9]])
    assert a.labels.tolist() == [2, 1]
    assert a.difficult.tolist() == [False, False]
    assert b.boxes_xyxy.shape == (0, 4)
    assert b.labels.shape == b.difficult.shape == (0,)
    for annotation in truth.annotations:
        assert annotation.boxes_xyxy.dtype == np.float64
        assert annotation.labels.dtype == np.int64
        assert annotation.difficult.dtype == np.bool_


def test_image_ids_may_be_text(write):
    file = content()
    file["images"][1]["id"] = "000007"
    for annotation in (file["annotations"][0], file["annotations"][2]):
        annotation["image_id"] = "000007"
    assert read_coco(write(file)).annotations[1].image_id == "000007"
    assert len(read_coco(write(file)).annotations[1].labels) == 2


@pytest.mark.parametrize("bbox", [[7, 9, 0, 4], [7, 9, 4, 0], [7, 9, -3, 4]])
def test_box_without_area_is_dropped_and_told(write, bbox):
    file = content()
    file["annotations"][0]["bbox"] = bbox
    truth = read_coco(write(file))
    assert truth.annotations[1].labels.tolist() == [1]
    (problem,) = truth.problems
    assert "gt.json: annotations[0] dropped" in problem


def change(*path: Any, to: Any) -> Any:
    """The content with another value at a place; `...` takes it out."""
    file = content()
    node = file
    for key in path[:-1]:
        node = node[key]
    if to is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = to
    return file


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "the file is empty; expected COCO annotations"),
        ("{", r"not readable as JSON: .*\(line 1, column 2\)"),
        ("[]", "the file is a list, not an object; expected COCO annotations"),
        ("{}", "the file has no 'images'"),
        (change("annotations", to=...), "the file has no 'annotations'"),
        (change("categories", to={}), "categories is an object, not a list"),
        (change("images", to=[]), "the list images is empty"),
        (change("categories", to=[]), "the list categories is empty"),
        (change("images", 1, "id", to=30), r"images\[0\] and images\[1\] have the same id 30"),
        (change("images", 1, "id", to="30"), r"images\[0\] and images\[1\] have the same id"),
        (change("categories", 0, "id", to=3), r"categories\[0\] and categories\[1\] .* same id 3"),
        (change("categories", 0, "name", to="car"), r".* have the same name 'car'"),
        (change("categories", 0, "name", to=...), r"categories\[0\] has no 'name'"),
        (change("annotations", 2, "image_id", to=8), r"annotations\[2\]\.image_id is 8, which"),
        (change("annotations", 2, "category_id", to=1), r"annotations\[2\]\.category_id is 1, "),
        (change("annotations", 2, "bbox", to=[1, 2, 3]), r"annotations\[2\]\.bbox is not a list"),
        (
            change("annotations", 2, "bbox", 3, to="9"),
            r"annotations\[2\]\.bbox\[3\] is text, not a number",
        ),
        (
            change("annotations", 2, "bbox", 3, to=float("nan")),
            r"annotations\[2\]\.bbox is \[-4\.0, 0\.0, 200\.0, nan\]; all four .* finite",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place(write, file, message):
    with pytest.raises(ValueError, match=r"gt\.json: " + message):
        read_coco(write(file))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gt\.json does not exist"):
        read_coco(tmp_path / "gt.json")
    with pytest.raises(FileNotFoundError, match=r"is a folder, not a file"):
        read_coco(tmp_path)
