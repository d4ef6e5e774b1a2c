"""The results reader: values by hand, and a rule for every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.evaluation.detection_files import read_detections
from ssd_dist.report.json_files import detections_json
from ssd_dist.structures import Annotation


def picture(image_id: str) -> Annotation:
    return Annotation(
        image_id, 0, 0, np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    )


COCO = GroundTruth("gt.json", (picture("7"), picture("30")), ("car", "bottle"), (3, 44), ())
VOC = GroundTruth("voc", (picture("000012"), picture("12")), ("cat", "dog"), (1, 2), ())


def row(**changes: Any) -> dict[str, Any]:
    """A good row for COCO; `...` takes a field out."""
    good = {"image_id": 7, "category_id": 44, "bbox": [1, 2, 3, 4], "score": 0.5}
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


@pytest.fixture
def write(tmp_path):
    def write(file: Any) -> Path:
        path = tmp_path / "dets.json"
        path.write_text(file if isinstance(file, str) else json.dumps(file))
        return path

    return write


def test_what_stands_in_the_file_is_what_comes_out(write):
    rows = [
        row(image_id=30, score=0.1, bbox=[0.1, 0.2, 5, 0]),
        row(score=1),
        row(image_id=30, category_id=3, score=0.9, segmentation=[[1, 2]]),
    ]
    first, second = read_detections(write(rows), COCO)
    assert first.image_id == "30"
    np.testing.assert_array_equal(first.boxes_xyxy, [[0.1, 0.2, 5.1, 0.2], [1, 2, 4, 6]])
    assert first.labels.tolist() == [2, 1]
    assert first.scores.tolist() == [0.1, 0.9]
    assert second.image_id == "7"
    assert second.scores.tolist() == [1.0]
    for found in (first, second):
        assert found.boxes_xyxy.dtype == found.scores.dtype == np.float64
        assert found.labels.dtype == np.int64


def test_nothing_detected(write):
    assert read_detections(write([]), COCO) == []
    assert read_detections(write(" [ ]\n"), COCO) == []


def test_byte_order_mark_is_no_mistake(write):
    assert read_detections(write("\ufeff[]"), COCO) == []


def test_pictures_by_stem_and_classes_by_number_or_name(write):
    rows = [
        row(image_id="000012", category_id=1),
        row(image_id="12", category_id=..., category="dog"),
        row(image_id=12, category_id=2, category="dog"),
    ]
    first, second = read_detections(write(rows), VOC)
    assert (first.image_id, first.labels.tolist()) == ("000012", [1])
    assert (second.image_id, second.labels.tolist()) == ("12", [2, 2])


def test_numbers_given_as_text_are_the_same_picture(write):
    (found,) = read_detections(write([row(image_id="7"), row(image_id=7)]), COCO)
    assert found.image_id == "7"
    assert len(found.scores) == 2


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_each_picture_keep_their_order(write, seed):
    rng = np.random.default_rng(seed)
    annotations = tuple(picture(str(i)) for i in range(6))
    truth = GroundTruth("gt", annotations, ("x",), (1,), ())
    rows = [
        row(image_id=int(i), category_id=1, score=place)
        for place, i in enumerate(rng.integers(0, 6, 40))
    ]
    expected: dict[str, list[int]] = {}
    for place, one in enumerate(rows):
        expected.setdefault(str(one["image_id"]), []).append(place)
    found = read_detections(write(rows), truth)
    assert [(f.image_id, f.scores.tolist()) for f in found] == list(expected.items())


def test_what_the_report_writes_is_read_back_bit_for_bit(write):
    rng = np.random.default_rng(0)
    rows = [
        row(image_id=i, category_id=c, bbox=rng.uniform(0, 500, 4).tolist(), score=rng.uniform())
        for i, c in ((30, 3), (30, 44), (7, 3))
    ]
    written = read_detections(write(rows), COCO)
    again = read_detections(write(detections_json(written, COCO.class_names)), COCO)
    for mine, theirs in zip(again, written, strict=True):
        assert mine.image_id == theirs.image_id
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        np.testing.assert_allclose(mine.boxes_xyxy, theirs.boxes_xyxy, rtol=1e-15)


GOOD = [row() for _ in range(17)]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "the file is empty; expected COCO results"),
        (" \n", "the file is empty"),
        ("score,bbox\n", r"not readable as JSON: Expecting value \(line 1, column 1\)"),
        ('[{"image_id": 7,\n', r"not readable as JSON: .*\(line 2, column 1\)"),
        ("[" * 100_000, "(nested too deeply|.*not an object)"),
        ({"annotations": []}, "the file is an object, not a list; expected COCO results"),
        (3, "the file is a whole number, not a list"),
        ([*GOOD, [1, 2]], r"\[17\] is a list, not an object"),
        ([*GOOD, row(score=...)], r"\[17\] has no 'score'"),
        ([*GOOD, row(bbox=...)], r"\[17\] has no 'bbox'"),
        ([*GOOD, row(image_id=...)], r"\[17\] has no 'image_id'"),
        ([*GOOD, row(category_id=...)], r"\[17\] has neither category_id nor category"),
        ([*GOOD, row(score="0.5")], r"\[17\]\.score is text, not a number; expected COCO results"),
        ([*GOOD, row(score=True)], r"\[17\]\.score is true or false, not a number"),
        ([*GOOD, row(score=None)], r"\[17\]\.score is null, not a number"),
        ([*GOOD, row(score=float("nan"))], r"\[17\]\.score is NaN; a score must be finite"),
        ([*GOOD, row(score=float("inf"))], r"\[17\]\.score is Infinity"),
        ([*GOOD, row(score=float("-inf"))], r"\[17\]\.score is -Infinity"),
        ('[{"image_id":7,"category_id":3,"bbox":[0,0,1,1],"score":1e999}]', r"\[0\]\.score: numb"),
        ([*GOOD, row(bbox=[1, 2, 3])], r"\[17\]\.bbox is not a list of 4"),
        ([*GOOD, row(bbox=[1, 2, 3, 4, 5])], r"\[17\]\.bbox is not a list of 4"),
        ([*GOOD, row(bbox=[1, 2, "3", 4])], r"\[17\]\.bbox\[2\] is text, not a number"),
        ([*GOOD, row(bbox=[1, 2, float("nan"), 4])], r"\[17\]\.bbox\[2\] is NaN; it must be"),
        # NaN in one row sends the file to the other parser: what else is wrong is told as well.
        ([row(score=float("nan")), row(bbox=[1, 2, 3])], r"\[1\]\.bbox is not a list of 4"),
        ([*GOOD, row(bbox=[1, 2, -3, 4])], r"\[17\]\.bbox has the negative width -3"),
        ([*GOOD, row(bbox=[1, 2, 3, -0.5])], r"\[17\]\.bbox has the negative height -0\.5"),
        ([*GOOD, row(image_id=8)], r"\[17\]\.image_id is 8, .* the 2 pictures of gt\.json"),
        ([*GOOD, row(image_id="x.jpg")], r"\[17\]\.image_id is 'x\.jpg', which is not among"),
        ([*GOOD, row(image_id=7.5)], r"\[17\]\.image_id is a number, not a whole number or text"),
        (
            [*GOOD, row(category_id=1)],
            r"\[17\]\.category_id is 1, which is not a class of gt\.json; its classes are "
            "3 car, 44 bottle$",
        ),
        (
            [*GOOD, row(category_id=..., category="dog")],
            r"\[17\]\.category is 'dog', which is not a class",
        ),
        (
            [*GOOD, row(category_id=3, category="bottle")],
            r"\[17\] has category_id 3, which is 'car', and category 'bottle'",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place(write, file, message):
    with pytest.raises(ValueError, match=r"dets\.json: " + message) as error:
        read_detections(write(file), COCO)
    assert "\n" not in str(error.value)


def test_text_in_another_encoding(tmp_path):
    path = tmp_path / "dets.json"
    path.write_bytes("[]".encode("utf-16"))
    assert read_detections(path, COCO) == []  # the standard library finds out which
    path.write_bytes(b'[{"image_id": "\xff"}]')
    with pytest.raises(ValueError, match=r"dets\.json: not readable as text"):
        read_detections(path, COCO)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dets\.json does not exist; give COCO results"):
        read_detections(tmp_path / "dets.json", COCO)
    with pytest.raises(FileNotFoundError, match="is a folder, not a file"):
        read_detections(tmp_path, COCO)
