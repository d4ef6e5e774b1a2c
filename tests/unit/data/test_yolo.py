"""The YOLO reader: conventions by hand, and a rule for every kind of bad input."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from formats import SPLITS, write_yolo

from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import open_split, split_names


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "yolo"
    write_yolo(folder, SPLITS)
    return folder


def label(root, text, stem="a"):
    (root / f"labels/train/{stem}.txt").write_text(text)


def refused(root, kind, message, split="train"):
    """In one sentence, and of this kind where all is gathered."""
    with pytest.raises(ValueError, match=message) as error:
        open_split(root, split)
    assert "\n" not in str(error.value)
    problems = ProblemList(strict=False)
    open_split(root, split, problems=problems)
    assert kind in {problem.kind for problem in problems}


def test_box_is_middle_and_sides(root):
    label(root, "1 0.5 0.5 0.25 0.2\n\n0 0.05 0.1 0.1 0.2\n")
    annotation = open_split(root, "train").annotations[0]
    # Of a picture of 40x30: middle (20, 15), sides 10 and 6.
    np.testing.assert_array_equal(annotation.boxes_xyxy, [[15, 12, 25, 18], [0, 0, 4, 6]])
    assert annotation.labels.tolist() == [1, 2]  # ant, bee: sorted, whatever their numbers


def test_rounding_to_six_decimals_leaves_no_picture(root):
    label(root, "0 0.833334 0.833334 0.333334 0.333334\n0 0.166666 0.5 0.333333 1.000001\n")
    opened = open_split(root, "train")
    assert opened.problems == ()
    boxes = opened.annotations[0].boxes_xyxy
    assert boxes[0, 2:].tolist() == [40, 30]
    assert boxes[1, [0, 1, 3]].tolist() == [0, 0, 30]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 0.5 0.5 0.1", "bad_columns", r"line 2 of .*a\.txt: 4 columns, not 5 \(class, x, y"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad_columns", r"line 2 of .*: 6 columns, not 5 .*a score"),
        ("0 .1 .1 .2 .1 .2 .2", "bad_columns", r"line 2 of .*: 7 columns, .* polygons are not"),
        ("0 20 0.5 0.1 0.1", "bad_coordinate", r"line 2 of .*: x is '20', above 1: .* in pixels"),
        ("0 0.5 0.5 0.1 1.01", "bad_coordinate", r"line 2 of .*: height is '1\.01', above 1"),
        ("0 -0.1 0.5 0.1 0.1", "bad_coordinate", r"line 2 of .*: x is '-0\.1', below 0"),
        ("0 nan 0.5 0.1 0.1", "bad_coordinate", r"line 2 of .*: x is 'nan', not a number"),
        ("0 x 0.5 0.1 0.1", "bad_coordinate", r"line 2 of .*: x is 'x', not a number"),
        ("ant 0.5 0.5 0.1 0.1", "bad_columns", r"line 2 of .*: the class is 'ant', not its number"),
        ("-1 0.5 0.5 0.1 0.1", "bad_columns", r"line 2 of .*: the class is '-1'"),
        ("2 0.5 0.5 0.1 0.1", "unknown_class", r"line 2 of .*: class 2 is not .* are 0 to 1"),
    ],
)
def test_bad_line(root, line, kind, message):
    label(root, f"1 0.5 0.5 0.25 0.2\n{line}\n")
    refused(root, kind, message)


@pytest.mark.parametrize(
    ("yaml", "kind", "message"),
    [
        ("names: [a", "broken_annotation", r"line 1 of .*data\.yaml: not readable as YAML"),
        ("- a\n- b", "broken_annotation", r"data\.yaml: no data\.yaml of YOLO"),
        ("train: images/train", "broken_annotation", r"has no 'names'"),
        ("train: images/train\nnames: []", "broken_annotation", r"has no 'names'"),
        ("train: images/train\nnames: [a, '']", "bad_class_name", r"class 1 has no name"),
        ("train: images/train\nnames: [a, no]", "bad_class_name", r"names\[1\] is 'False', not t"),
        ("train: images/train\nnames: [a, [b]]", "bad_class_name", r"names\[1\] is a list, not te"),
        (
            "train: images/train\nnames: [a, a]",
            "repeated_entry",
            r"names\[1\] repeats the name 'a'",
        ),
        ("train: images/train\nnames: {x: a}", "broken_annotation", r"'x' is no number of a class"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "broken_annotation", r"nc is 3, .* 2 names"),
        ("train: ../../train\nnames: [a, b]", "outside_root", r"'\.\./\.\./train' leads out"),
        ("train: /etc\nnames: [a, b]", "outside_root", r"'/etc' leads out"),
        ("train: images/no\nnames: [a, b]", "missing_file", r"no folder images/no"),
        ("train: no.txt\nnames: [a, b]", "missing_file", r"no\.txt: no such list"),
    ],
)
def test_bad_yaml(root, yaml, kind, message):
    (root / "data.yaml").write_text(yaml)
    if "train" in yaml:
        refused(root, kind, message)
    else:
        with pytest.raises(ValueError, match=message):
            open_split(root, "train")


def test_yaml_of_aliases_is_not_unfolded(root):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (root / "data.yaml").write_text("\n".join([*lines, "train: images/train", "names: [*a39]"]))
    refused(root, "bad_class_name", r"names\[0\] is a list, not text")


def test_names_may_be_numbered_with_gaps(root):
    (root / "data.yaml").write_text("train: images/train\nnames: {0: bee, 1: ant, 9: 8}")
    assert open_split(root, "train").class_names == ("8", "ant", "bee")


def test_roboflow_layout(root):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / kind)
    shutil.rmtree(root / "images")
    shutil.rmtree(root / "labels")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../val/images\nnc: 2\nnames: ['bee', 'ant']\nroboflow: {a: 1}"
    )
    assert split_names(root) == ["train", "val"]
    opened = open_split(root, "train")
    assert [len(each.labels) for each in opened.annotations] == [2, 1, 0, 1]


def test_lists_keep_their_order_and_repeat_nothing(root):
    (root / "data.yaml").write_text("train: [t.txt]\nboth: b.txt\nnames: [bee, ant]")
    (root / "t.txt").write_text("images/train/e.png\n./images/train/a.png\nimages/train/e.png\n")
    (root / "b.txt").write_text("images/train/b.png\n")
    opened = open_split(root, "train")
    assert [each.image_id for each in opened.annotations] == ["e", "a"]
    (problem,) = opened.problems
    assert "line 3 of" in problem
    assert "is there again, and dropped" in problem
    assert split_names(root) == ["both", "train"]


def test_pictures_of_one_name_in_two_folders(root):
    for folder in ("x", "y"):
        (root / "images/train" / folder).mkdir()
        shutil.copy(root / "images/train/b.png", root / f"images/train/{folder}/b.png")
    ids = [each.image_id for each in open_split(root, "train").annotations]
    assert ids == ["a", "b", "c", "e", "x/b", "y/b"]


def test_labels_in_the_wrong_place_are_not_a_split_without_objects(root):
    (root / "labels").rename(root / "annotations")
    refused(root, "missing_file", r"a\.txt: none of the split's 4 pictures has a label file")


def test_a_pipe_is_not_waited_for(root):
    path = root / "labels/train/a.txt"
    path.unlink()
    os.mkfifo(path)
    refused(root, "unusable_file", "not a plain file")
