"""The record of a prediction: each picture once, in a fixed order, whatever happens."""

import contextlib
import sqlite3

import numpy as np
import pytest

from ssd_dist.distributed.prediction_listing import MISNAMED, PICTURE, Source
from ssd_dist.distributed.prediction_record import Record, planned

NOTHING = (np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32))


@pytest.fixture
def record(tmp_path):
    opened = Record(tmp_path / "record.sqlite")
    yield opened
    opened.close()


def listed(record, *sources, request=None):
    return record.take_up(sources, request or {"paths": []})


def pictures(record, batch_size=2):
    return [row for rows in planned(record.path, batch_size) for row in rows]


def done(position, problem=None):
    return position, 640, 480, *NOTHING, problem


def test_the_order_is_that_of_the_arguments_and_then_of_the_paths(record):
    count = listed(
        record,
        (1, Source("z", "/b/z.jpg", PICTURE)),
        (0, Source("y", "/c/y.jpg", PICTURE)),
        (1, Source("x", "/b/x.jpg", PICTURE)),
    )
    assert count == record.plan() == 3
    assert pictures(record) == [
        (0, "y", "/c/y.jpg", PICTURE), (1, "x", "/b/x.jpg", PICTURE), (2, "z", "/b/z.jpg", PICTURE),
    ]  # fmt: skip


def test_a_picture_that_two_arguments_mean_is_one(record):
    twice = [(n, Source(name, "/a/b/c.jpg", PICTURE)) for n, name in enumerate(("b/c", "c"))]
    assert listed(record, *twice) == 1
    record.plan()
    assert pictures(record) == [(0, "b/c", "/a/b/c.jpg", PICTURE)]


def test_names_that_would_be_the_same_are_paths(record):
    listed(
        record,
        (0, Source("one", "/a/one.jpg", PICTURE)),
        (0, Source("one", "/a/one.png", PICTURE)),
        (1, Source("one", "/b/one.jpg", PICTURE)),
        (1, Source("two", "/b/two.jpg", PICTURE)),
    )
    record.plan()
    assert [row[1] for row in pictures(record)] == ["/a/one.jpg", "/a/one.png", "/b/one.jpg", "two"]


def test_a_file_with_no_proper_name_is_no_frame(record):
    listed(record, (0, Source("x", "/x.mp4", MISNAMED)), (0, Source("y", "/y.jpg", PICTURE)))
    record.plan()
    assert pictures(record) == [(0, "x", "/x.mp4", MISNAMED), (1, "y", "/y.jpg", PICTURE)]


def test_frames_are_numbered_by_their_times(record):
    listed(record, *((0, Source("clip", "/clip.mp4", time)) for time in (0, 1024, 512)))
    record.plan()
    assert [(row[1], row[3]) for row in pictures(record)] == [
        ("clip/000000", 0), ("clip/000001", 512), ("clip/000002", 1024),
    ]  # fmt: skip


def test_what_is_planned_does_not_change_while_pictures_come_back(record):
    """A task that reads it again, because it was lost, must yield the same."""
    listed(record, *((0, Source(str(i), f"/{i:02d}.jpg", PICTURE)) for i in range(7)))
    record.plan()
    before = pictures(record)
    reading = planned(record.path, 3)
    first = next(reading)
    record.add([done(0), done(5)])
    assert [*first, *(row for rows in reading for row in rows)] == before
    assert pictures(record) == before
    assert record.plan() == 5
    assert [row[0] for row in pictures(record)] == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("name", ["out #1", "out?mode=rw", "100%25", "Größe"])
def test_it_is_read_back_in_a_folder_of_any_name(name, tmp_path):
    (tmp_path / name).mkdir()
    with contextlib.closing(Record(tmp_path / name / "record.sqlite")) as record:
        listed(record, (0, Source("a", "/a.jpg", PICTURE)))
        record.plan()
        assert pictures(record) == [(0, "a", "/a.jpg", PICTURE)]


def test_unreadable_pictures_are_tried_again(record):
    listed(record, *((0, Source(str(i), f"/{i}.jpg", PICTURE)) for i in range(3)))
    record.plan()
    record.add([done(0), done(1, "broken"), done(2)])
    assert record.num_done() == 3
    assert [one.problem for one in record.done()] == [None, "broken", None]
    assert record.plan() == 1
    assert [row[0] for row in pictures(record)] == [1]


def test_detections_come_back_as_they_went_in(record):
    listed(record, (0, Source("a", "/a.jpg", PICTURE)))
    boxes = np.array([[0.1, 2.5, 3.25, 400.7], [1, 2, 3, 4]], np.float32)
    labels, scores = np.array([3, 1]), np.array([0.9, 0.3], np.float32)
    record.add([(0, 640, 480, boxes, labels, scores, None)])
    [found] = record.done()
    assert (found.position, found.image_id, found.path) == (0, "a", "/a.jpg")
    assert (found.width, found.height) == (640, 480)
    assert np.array_equal(found.detections.boxes_xyxy, boxes)
    assert np.array_equal(found.detections.labels, labels)
    assert np.array_equal(found.detections.scores, scores)


def test_a_batch_is_there_whole_or_not_at_all(record):
    listed(record, *((0, Source(str(i), f"/{i}.jpg", PICTURE)) for i in range(3)))
    record.add([done(1)])
    with pytest.raises(RuntimeError, match="picture 1 came back twice"):
        record.add([done(0), done(1)])
    assert [one.position for one in record.done()] == [1]


def test_a_listing_that_was_cut_off_leaves_nothing(record):
    def sources():
        yield 0, Source("a", "/a.jpg", PICTURE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.take_up(sources(), {})
    assert record.request() is None
    assert record.num_pictures() == 0
    assert listed(record, (0, Source("b", "/b.jpg", PICTURE)), request={"paths": ["x"]}) == 1
    assert record.request() == {"paths": ["x"]}


def test_what_was_added_outlives_a_process_that_ends_at_once(record):
    listed(record, (0, Source("a", "/a.jpg", PICTURE)))
    record.add([done(0)])
    other = sqlite3.connect(record.path)  # as after kill -9: the first was never closed
    assert other.execute("SELECT count(*) FROM found").fetchone() == (1,)
    other.close()


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "record.sqlite"
    path.write_text("something else, which is long enough to be looked at" * 10)
    with pytest.raises(OSError, match=r"record\.sqlite"):
        Record(path)
