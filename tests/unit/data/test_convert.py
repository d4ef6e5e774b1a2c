"""`python -m ssd_dist.data convert`: every box comes back, and nothing is half-written."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from formats import CLASSES, SIZE, SPLITS, WRITE, picture_path, write_pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssd_dist.data import yolo_writer
from ssd_dist.data.__main__ import run
from ssd_dist.data.readers import open_ground_truth, open_split
from ssd_dist.data.synthetic import NUM_IMAGES
from ssd_dist.structures import Annotation


@pytest.fixture
def convert(tmp_path, capsys):
    """Converts; the exit status, and what was said."""

    def call(source, name, *flags):
        status = run(["convert", str(source), str(tmp_path / name), *flags])
        return status, "".join(capsys.readouterr())

    return call


@pytest.fixture
def make(tmp_path):
    def make(name, splits=SPLITS):
        root = tmp_path / f"{name}-source"
        WRITE[name](root, splits)
        return root

    return make


def boxes(root, split="train"):
    return [
        (each.boxes_xyxy, each.labels.tolist(), each.difficult.tolist())
        for each in open_ground_truth(root, split).annotations
    ]


def assert_same(first, second):
    for (a, labels, difficult), (b, other_labels, other_difficult) in zip(
        first, second, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        assert labels == other_labels
        assert difficult == other_difficult


FRACTIONS = {
    "train": {
        # Beyond the picture's edges, too: an evaluation takes what stands there.
        "a": [("ant", 0.1, 1 / 3, 11.7, 22), ("bee", -3.25, 2, 41.5, 29.999)],
        "b b": [],
    },
    "val": {"v": [("bee", 1, 1, 9, 9)]},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.product(WRITE, WRITE)))
def test_there_and_back(convert, make, tmp_path, first, second):
    splits = FRACTIONS
    if first == "voc":  # whose lists hold no names with spaces
        splits = {**FRACTIONS, "train": {"a": FRACTIONS["train"]["a"], "b": []}}
    source = make(first, splits)
    if first == "yolo":  # which says no box that is wider than its picture
        for path in source.glob("labels/train/a.txt"):
            lines = path.read_text().splitlines()
            path.write_text(f"{lines[0]}\n0 0.3 0.4 0.61 0.39\n")
    status, said = convert(source, "there", "--to", second)
    assert status == 0, said
    status, said = convert(tmp_path / "there", "back", "--to", first)
    assert status == 0, said
    there, back = tmp_path / "there", tmp_path / "back"
    if (first, second) == ("voc", "yolo") or (first, second) == ("coco", "yolo"):
        assert (
            "1 boxes that leave their pictures are clipped"
            in convert(source, "again", "--to", second)[1]
        )
        assert_same(boxes(there), boxes(back))
    else:
        assert_same(boxes(source), boxes(there))
        assert_same(boxes(source), boxes(back))
    opened = open_split(back, "train")
    assert opened.class_names == CLASSES
    original = open_split(source, "train")
    for i in range(len(original.annotations)):
        np.testing.assert_array_equal(original.read_image(i), opened.read_image(i))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    corners=st.lists(
        st.tuples(*[st.floats(0, 1) for _ in range(4)]).filter(
            lambda b: abs(b[0] - b[2]) > 1e-6 and abs(b[1] - b[3]) > 1e-6
        ),
        min_size=1,
        max_size=5,
    ),
    width=st.integers(1, 20_000),
    height=st.integers(1, 20_000),
)
def test_relative_boxes_lose_nothing(corners, width, height):
    boxes_xyxy = np.array(
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    ) * np.array([width, height, width, height])
    count = len(corners)
    annotation = Annotation(
        "a", width, height, boxes_xyxy, np.ones(count, int), np.zeros(count, bool)
    )
    fitted = yolo_writer.fit(annotation)
    np.testing.assert_array_equal(fitted.boxes_xyxy, boxes_xyxy)
    x, y, w, h = np.array(
        [[float(v) for v in line.split()[1:]] for line in yolo_writer._lines(fitted).splitlines()]
    ).T
    again = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    np.testing.assert_allclose(
        again * np.array([width, height, width, height]), boxes_xyxy, rtol=0, atol=1e-6
    )


def test_difficult_is_kept_where_the_format_can(convert, make, tmp_path):
    splits = {"train": {"a": [("ant", 1, 1, 9, 9, 1), ("bee", 2, 2, 8, 8, 0)]}}
    source = make("voc", splits)
    assert convert(source, "coco", "--to", "coco")[0] == 0
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [each["iscrowd"] for each in content["annotations"]] == [1, 0]
    convert(tmp_path / "coco", "voc", "--to", "voc")
    assert boxes(tmp_path / "voc")[0][2] == [True, False]
    _, said = convert(source, "yolo", "--to", "yolo")
    assert "1 difficult objects (or crowds) are ordinary ones now" in said
    assert boxes(tmp_path / "yolo")[0][1] == [1, 2]
    _, said = convert(source, "less", "--to", "yolo", "--drop-difficult")
    assert "ordinary" not in said
    assert boxes(tmp_path / "less")[0][1] == [2]


def test_one_based_corners(convert, make, tmp_path):
    source = make("voc", {"train": {"a": [("ant", 1, 1, 40, 30)]}})
    convert(source, "coco", "--to", "coco", "--one-based")
    assert boxes(tmp_path / "coco")[0][0].tolist() == [[0, 0, 40, 30]]
    convert(tmp_path / "coco", "voc", "--to", "voc", "--one-based")
    assert boxes(tmp_path / "voc")[0][0].tolist() == [[1, 1, 40, 30]]


def test_voc_is_written_with_decimals_only_where_needed(convert, make, tmp_path):
    source = make("coco", {"train": {"a": [("ant", 1, 2, 9.5, 8)]}})
    convert(source, "voc", "--to", "voc")
    xml = ET.parse(tmp_path / "voc/Annotations/a.xml").getroot()
    assert [each.text for each in xml.find("object/bndbox")] == ["1", "2", "9.5", "8"]
    assert [int(xml.find(f"size/{side}").text) for side in ("width", "height")] == list(SIZE)


def test_class_names_of_any_kind(convert, make, tmp_path):
    source = make("coco", {"train": {"a": [("ant", 1, 2, 9, 8)]}})
    path = source / "annotations/instances_train2017.json"
    name = "<b>&amp; 'x' \"y\": {no} #1"
    path.write_text(path.read_text().replace('"ant"', json.dumps(name)))
    for to in WRITE:
        status, said = convert(source, to, "--to", to)
        assert status == 0, said
        assert name in open_split(tmp_path / to, "train").class_names
    assert (
        "class 'bee' has no object, and VOC knows no others"
        in convert(source, "again", "--to", "voc")[1]
    )


def test_pictures_of_one_name_in_two_splits(convert, tmp_path):
    """In COCO's layout they are two pictures; in VOC's they need two names."""
    root = tmp_path / "source"
    WRITE["coco"](root, {"train": {"a": [("ant", 1, 1, 9, 9)]}, "val": {"a": []}})
    write_pictures(root / "train2017", {"train": {"b": []}})
    (root / "train2017/b.png").rename(root / "train2017/a.png")
    assert convert(root, "voc", "--to", "voc")[0] == 0
    names = sorted(path.name for path in (tmp_path / "voc/JPEGImages").iterdir())
    assert names == ["a.png", "val_a.png"]
    assert len(boxes(tmp_path / "voc", "val")[0][1]) == 0


def test_a_picture_of_two_splits_is_written_once(convert, make, tmp_path):
    source = make("voc")
    (source / "ImageSets/Main/trainval.txt").write_text("a\nb\nc\ne\nd\n")
    for to in WRITE:
        assert convert(source, to, "--to", to)[0] == 0
        assert len(list((tmp_path / to).rglob("*.png"))) == 5
        assert len(open_split(tmp_path / to, "trainval").annotations) == 5


@pytest.mark.parametrize("to", WRITE)
def test_pictures_are_links_or_copies(convert, make, tmp_path, to):
    source = make("voc")
    convert(source, "linked", "--to", to)
    convert(source, "copied", "--to", to, "--copy")
    inode = picture_path(source, "voc", "train", "a").stat().st_ino
    linked, copied = (next((tmp_path / n).rglob("a.png")).stat() for n in ("linked", "copied"))
    assert linked.st_ino == inode
    assert copied.st_ino != inode


def test_synthetic_data(convert, tmp_path, monkeypatch):
    monkeypatch.setitem(NUM_IMAGES, "val", 3)
    assert convert("synthetic", "out", "--to", "yolo", "--split", "val")[0] == 0
    written, drawn = open_split(tmp_path / "out", "val"), open_split("synthetic", "val")
    assert written.class_names == drawn.class_names
    for i, (a, b) in enumerate(zip(written.annotations, drawn.annotations, strict=True)):
        np.testing.assert_array_equal(a.boxes_xyxy, b.boxes_xyxy)
        np.testing.assert_array_equal(written.read_image(i), drawn.read_image(i))


@pytest.mark.parametrize("to", WRITE)
def test_nothing_is_left_of_what_is_refused(convert, make, tmp_path, to):
    source = make("voc")
    picture_path(source, "voc", "val", "d").write_bytes(b"no picture")
    before = set(tmp_path.iterdir())
    status, said = convert(source, "out", "--to", to)
    assert status == 1
    assert said.count("\n") == 1
    assert "d.png: not readable as a picture" in said
    assert set(tmp_path.iterdir()) == before


def test_what_is_there_is_not_overwritten(convert, make, tmp_path):
    (tmp_path / "out").mkdir()
    status, said = convert(make("voc"), "out", "--to", "coco")
    assert status == 1
    assert "out exists already" in said
    assert not list((tmp_path / "out").iterdir())
