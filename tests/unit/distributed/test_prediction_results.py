"""The files of a prediction: read back by this project's reader, by pycocotools, and as a table."""

import csv
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from ssd_dist.distributed.prediction_listing import PICTURE, Source
from ssd_dist.distributed.prediction_record import Record
from ssd_dist.distributed.prediction_results import write_results

CLASSES = ("cat", "dog, large")


@pytest.fixture
def record(tmp_path):
    opened = Record(tmp_path / "record.sqlite")
    names = ("a", "b", "c")
    opened.take_up(((0, Source(n, f"/pictures/{n}.jpg", PICTURE)) for n in names), {})
    yield opened
    opened.close()


def add(record, position, boxes, labels, scores, problem=None):
    record.add(
        [
            (
                position,
                *((0, 0) if problem else (640, 480)),
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array(labels, np.int64),
                np.array(scores, np.float32),
                problem,
            )
        ]
    )


def test_three_files_say_the_same(record, tmp_path, capsys):
    add(record, 0, [[10, 20, 30.5, 60], [1, 2, 3, 4]], [2, 1], [0.75, 0.5])
    add(record, 1, [], [], [])
    add(record, 2, [], [], [], problem="c.jpg: not readable, says\nPillow")
    assert write_results(record, tmp_path, CLASSES) == 1

    rows = json.loads((tmp_path / "detections.json").read_text())
    assert rows == [
        {"image_id": "a", "category": "dog, large", "bbox": [10, 20, 20.5, 40], "score": 0.75},
        {"image_id": "a", "category": "cat", "bbox": [1, 2, 2, 2], "score": 0.5},
    ]
    coco = COCO(str(tmp_path / "coco.json"))
    assert {i["file_name"]: (i["width"], i["height"]) for i in coco.imgs.values()} == {
        "/pictures/a.jpg": (640, 480), "/pictures/b.jpg": (640, 480),
    }  # fmt: skip
    assert [coco.cats[one["category_id"]]["name"] for one in coco.imgToAnns[1]] == [
        "dog, large", "cat",
    ]  # fmt: skip
    assert [one["bbox"] for one in coco.imgToAnns[1]] == [row["bbox"] for row in rows]
    with (tmp_path / "detections.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["class"], float(row["score"]), float(row["x2"])) for row in table] == [
        ("dog, large", 0.75, 30.5), ("cat", 0.5, 3),
    ]  # fmt: skip
    with (tmp_path / "unreadable.csv").open(newline="") as file:
        [unreadable] = csv.DictReader(file)
    assert unreadable["file"] == "/pictures/c.jpg"
    assert not list(tmp_path.glob(".*"))


def test_where_nothing_is_found_the_files_are_valid(record, tmp_path):
    for position in range(3):
        add(record, position, [], [], [])
    assert write_results(record, tmp_path, CLASSES) == 0
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert len(COCO(str(tmp_path / "coco.json")).imgs) == 3
    assert not (tmp_path / "unreadable.csv").exists()


def test_a_disk_that_is_full_leaves_no_half_file(record, tmp_path, monkeypatch):
    add(record, 0, [[1, 2, 3, 4]], [1], [0.5])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssd_dist.distributed.prediction_results.sync", full)
    with pytest.raises(OSError, match="No space left"):
        write_results(record, tmp_path, CLASSES)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"record.sqlite"}
