"""What holds for the readers of all formats, whatever a new one may be."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from formats import CLASSES, SIZE, SPLITS, WRITE, picture_path

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import Config, replace_at
from ssd_dist.data.inspection import inspect_data
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import FORMATS, find_reader, open_ground_truth, open_split, split_names
from ssd_dist.engine import Worker
from ssd_dist.training import train

pytestmark = pytest.mark.parametrize("name", FORMATS)

BROKEN = {
    "box_clipped": ("ant", -3, 2, 9, 11),
    "box_without_area": ("ant", 4, 4, 4, 9),
    "repeated_object": ("bee", 1, 2, 11, 22),
}


@pytest.fixture
def make_root(tmp_path, name):
    def make(splits=SPLITS, sub="data"):
        root = tmp_path / sub
        WRITE[name](root, splits)
        return root

    return make


def with_object(*objects):
    """The data set with more objects in picture `a`."""
    splits = copy.deepcopy(dict(SPLITS))
    splits["train"]["a"] = [*splits["train"]["a"], *objects]
    return splits


def test_every_format_is_tried(name):
    assert name in WRITE


def test_folder_tells_its_format(name, make_root):
    root, reader = find_reader(make_root())
    assert reader is FORMATS[name]
    assert split_names(root) == ["train", "val"]
    assert split_names(root, name) == ["train", "val"]
    for other in FORMATS.keys() - {name}:
        with pytest.raises(ValueError, match=rf"holds no data set: there is no .* \({other}\)"):
            open_split(root, "train", data_format=other)


def test_annotations(name, make_root):
    root = make_root()
    for split, pictures in SPLITS.items():
        opened = open_split(str(root), split)
        assert opened.name == split
        assert opened.class_names == CLASSES
        assert opened.problems == ()
        assert len(opened.annotations) == len(pictures)
        for i, (stem, objects) in enumerate(pictures.items()):
            annotation = opened.annotations[i]
            assert (annotation.width, annotation.height) == SIZE
            boxes = np.array([box[1:5] for box in objects], np.float32).reshape(-1, 4)
            np.testing.assert_array_equal(annotation.boxes_xyxy, boxes)
            assert annotation.boxes_xyxy.dtype == np.float32
            assert annotation.labels.tolist() == [1 + CLASSES.index(o[0]) for o in objects]
            assert annotation.labels.dtype == np.int64
            assert not annotation.difficult.any()
            if name != "coco":  # whose ids are numbers
                assert annotation.image_id == stem
            assert opened.read_image(i).shape == (SIZE[1], SIZE[0], 3)


def test_ground_truth_is_unclipped(name, make_root):
    root = make_root(with_object(BROKEN["box_clipped"]))
    truth = open_ground_truth(root, "train")
    assert truth.class_names == CLASSES
    boxes = truth.annotations[0].boxes_xyxy
    assert boxes.dtype == np.float64
    np.testing.assert_allclose(boxes[-1], BROKEN["box_clipped"][1:], rtol=0, atol=1e-12)


def test_difficult_objects_and_crowds(name, make_root):
    if name == "yolo":
        pytest.skip("knows no difference")
    opened = open_split(make_root(with_object(("ant", 1, 1, 8, 8, 1))), "train")
    assert opened.annotations[0].difficult.tolist() == [False, False, True]


def test_fingerprint(name, make_root):
    root = make_root()
    first = open_split(root, "train")
    assert open_split(root, "train").fingerprint == first.fingerprint
    other_boxes = open_split(make_root(with_object(("ant", 1, 1, 8, 8)), sub="more"), "train")
    other_names = open_split(root, "train", ("bee", "ant"))
    picture = picture_path(root, name, "train", "b")
    os.utime(picture, (1, 1))
    touched = open_split(root, "train")
    prints = {each.fingerprint for each in (first, other_boxes, other_names, touched)}
    assert len(prints) == 4


def test_given_class_names(name, make_root):
    opened = open_split(make_root(), "train", ("cow", "bee", "ant"))
    assert opened.class_names == ("cow", "bee", "ant")
    assert opened.annotations[0].labels.tolist() == [2, 3]
    with pytest.raises(ValueError, match="unknown class 'ant'; known are: bee"):
        open_split(make_root(sub="again"), "train", ("bee",))


@pytest.mark.parametrize("kind", BROKEN)
def test_problems_are_told_alike(name, make_root, kind):
    problems = ProblemList(strict=True)
    open_split(make_root(with_object(BROKEN[kind])), "train", problems=problems)
    assert [problem.kind for problem in problems] == [kind]


def test_unknown_split_names_those_that_exist(name, make_root):
    with pytest.raises(ValueError, match=r"no split 'test' in .*; there are: train, val$"):
        open_split(make_root(), "test")


def test_missing_picture(name, make_root):
    root = make_root()
    path = picture_path(root, name, "val", "d")
    path.unlink()
    with pytest.raises(ValueError, match=r"."):
        open_split(root, "val")
    open_split(root, "train")


def test_broken_picture(name, make_root):
    root = make_root()
    picture_path(root, name, "train", "b").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b\.png: not readable as a picture"):
        open_split(root, "train")
    problems = ProblemList(strict=False)
    assert len(open_split(root, "train", problems=problems).annotations) == 3
    assert [problem.kind for problem in problems] == ["unreadable_picture"]


def test_picture_that_leads_out(name, make_root, tmp_path):
    root = make_root()
    path = picture_path(root, name, "train", "b")
    path.rename(tmp_path / "outside.png")
    path.symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match="outside the data set's folder"):
        open_split(root, "train")


def test_shared_pictures_are_told_from_both_sides(name, make_root):
    root = make_root()
    if name == "voc":
        (root / "ImageSets/Main/val.txt").write_text("d\na\n")
    elif name == "yolo":
        (root / "data.yaml").write_text("names: [bee, ant]\ntrain: images/train\nval: val.txt")
        (root / "val.txt").write_text("./images/val/d.png\n./images/train/a.png\n")
    else:
        path = root / "annotations/instances_val2017.json"
        path.write_text(path.read_text().replace('"d.png"', '"../train2017/d.png"'))
        with pytest.raises(ValueError, match="leads out of the folder of pictures"):
            open_split(root, "val")
        return
    for split in ("train", "val"):
        problems = ProblemList(strict=True)
        open_split(root, split, problems=problems)
        assert [problem.kind for problem in problems] == ["shared_id"]


def test_check_reads_it(name, make_root):
    root = make_root(with_object(BROKEN["box_clipped"]))
    inspection = inspect_data(str(root), ["train", "val"], data_format=name)
    assert [(s.name, s.num_pictures, s.num_objects, s.num_empty) for s in inspection.splits] == [
        ("train", 4, 5, 1),
        ("val", 1, 1, 0),
    ]
    assert [problem.kind for problem in inspection.problems] == ["box_clipped"]


CONFIG = replace_at(
    Config(),
    {
        "lr": 1e-2,
        "epochs": 3,
        "global_batch_size": 2,
        "model.backbone": "test_resnet.r160_in1k",
        "model.image_size": 64,
        "model.feature_strides": [8, 16],
        "model.neck_channels": 16,
        "model.num_extra_maps": 1,
    },
)


def trained_parameters(root, folder, monkeypatch):
    """After 6 steps: 2 of each epoch."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(folder))
    saved = []
    train(
        CONFIG,
        str(root),
        Worker(torch.device("cpu")),
        lambda epoch: (epoch.save(folder / str(len(saved))), saved.append(epoch.metrics)),
    )
    assert saved[-1]["loss"] > 0
    return load_checkpoint(folder / str(len(saved) - 1)).weights


def test_training_is_the_same_bit_for_bit(name, make_root, tmp_path, monkeypatch):
    """As with the same data in VOC's layout."""
    if name == "voc":
        pytest.skip("is what the others are compared with")
    WRITE["voc"](tmp_path / "voc", SPLITS)
    expected = trained_parameters(tmp_path / "voc", tmp_path / "first", monkeypatch)
    found = trained_parameters(make_root(), tmp_path / "second", monkeypatch)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
