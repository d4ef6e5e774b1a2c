"""The VOC reader: values by hand, and a rule for every kind of bad input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_dist.data.annotations import MAX_OBJECTS
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import open_ground_truth, open_split


def rewrite(root: Path, image_id: str, old: str, new: str) -> Path:
    path = root / "Annotations" / f"{image_id}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_what_stands_in_the_files_is_what_comes_out(voc_root):
    split = open_split(voc_root, "train")
    assert split.name == "train"
    assert split.class_names == ("bird", "cat", "dog")  # of all splits, by name
    assert [a.image_id for a in split.annotations] == ["a", "b", "c"]
    assert split.problems == ()
    first = split.annotations[0]
    assert (first.width, first.height) == (40, 30)
    np.testing.assert_array_equal(first.boxes_xyxy, [[1, 2, 11, 22], [5.5, 6, 40, 30]])
    assert first.boxes_xyxy.dtype == np.float32
    assert first.labels.tolist() == [3, 2]
    assert first.labels.dtype == np.int64
    assert first.difficult.tolist() == [False, True]


def test_picture_without_objects_is_kept(voc_root):
    empty = open_split(voc_root, "train").annotations[2]
    assert empty.boxes_xyxy.shape == (0, 4)
    assert empty.labels.shape == empty.difficult.shape == (0,)
    assert empty.labels.dtype == np.int64


def test_all_splits_number_the_classes_alike(voc_root):
    train, test = open_split(voc_root, "train"), open_split(voc_root, "test")
    assert train.class_names == test.class_names
    assert test.annotations[0].labels.tolist() == [1]


def test_splits_without_annotations_do_not_hinder_the_others(voc_root):
    (voc_root / "ImageSets/Main/challenge.txt").write_text("not_published\n")
    assert open_split(voc_root, "train").class_names == ("bird", "cat", "dog")


def test_given_classes_number_as_given(voc_root):
    split = open_split(voc_root, "train", class_names=["dog", "horse", "cat"])
    assert split.class_names == ("dog", "horse", "cat")
    assert split.annotations[0].labels.tolist() == [1, 3]


def test_per_class_file_with_two_columns(voc_root):
    (voc_root / "ImageSets/Main/dog_train.txt").write_text("a  1\nc -1\n\n")
    split = open_split(voc_root, "dog_train")
    assert [a.image_id for a in split.annotations] == ["a", "c"]


def test_parts_of_an_object_are_no_objects(voc_root):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    rewrite(voc_root, "b", "</object>", part)
    split = open_split(voc_root, "train")
    assert "head" not in split.class_names
    assert len(split.annotations[1].labels) == 1


def test_size_is_the_pictures_own(voc_root):
    rewrite(voc_root, "a", "<width>40</width>", "<width>4000</width>")
    rewrite(voc_root, "b", "<size><width>40</width><height>30</height></size>", "")
    split = open_split(voc_root, "train")
    for annotation in split.annotations[:2]:
        assert (annotation.width, annotation.height) == (40, 30)
    (problem,) = split.problems
    assert "a.xml: its <size> 4000x30 ignored: the picture is 40x30" in problem


def turn(root: Path, image_id: str, orientation: int) -> None:
    """Stores a picture as a camera held at an angle does: pixels as they are, and a mark."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / f"JPEGImages/{image_id}.png").unlink()
    Image.new("RGB", (40, 30)).save(root / f"JPEGImages/{image_id}.jpg", exif=exif)


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_boxes_of_the_stored_pixels_ignore_exif(voc_root, orientation):
    turn(voc_root, "a", orientation)
    split = open_split(voc_root, "train")
    assert (split.annotations[0].width, split.annotations[0].height) == (40, 30)
    assert split.read_image(0).shape == (30, 40, 3)
    (problem,) = split.problems
    assert f"a.jpg: its EXIF orientation {orientation} is ignored" in problem


def test_boxes_of_the_turned_picture_are_refused(voc_root):
    turn(voc_root, "a", 6)
    size = "<width>40</width><height>30</height>"
    rewrite(voc_root, "a", size, "<width>30</width><height>40</height>")
    with pytest.raises(ValueError, match=r"a\.xml: its boxes are of the picture as EXIF turns it"):
        open_split(voc_root, "train")
    turn(voc_root, "b", 3)  # on its head, no size can tell
    rewrite(voc_root, "b", size, "<width>30</width><height>40</height>")
    problems = ProblemList(strict=False)
    open_split(voc_root, "train", problems=problems)
    assert [problem.kind for problem in problems] == [
        "turned_annotation",
        "orientation",
        "orientation",
        "other_size",
    ]


def test_second_picture_of_one_name_is_ignored_and_told(voc_root):
    Image.new("RGB", (8, 6)).save(voc_root / "JPEGImages/a.jpg")
    split = open_split(voc_root, "train")
    assert split.annotations[0].width == 8
    assert any(
        "a.png: a second picture of this name ignored: a.jpg is read" in p for p in split.problems
    )


def test_same_object_twice_is_kept_and_told(write_voc):
    dog = ("dog", 1, 1, 9, 9)
    split = open_split(write_voc({"train": {"a": [dog, ("cat", 1, 1, 9, 9), dog]}}), "train")
    assert split.annotations[0].labels.tolist() == [2, 1, 2]
    (problem,) = split.problems
    assert "a.xml: 'dog' box (1, 1, 9, 9) stands here again, as in line 1" in problem


def test_more_objects_than_can_be_matched_are_refused(write_voc):
    objects = [("dog", i % 30, i % 20, i % 30 + 5, i % 20 + 7) for i in range(MAX_OBJECTS + 1)]
    root = write_voc({"train": {"a": objects[:-1]}, "test": {"b": objects}})
    assert len(open_split(root, "train").annotations[0].labels) == MAX_OBJECTS
    with pytest.raises(ValueError, match=r"b\.xml: 1,001 objects, more than the 1,000 that a pict"):
        open_split(root, "test")
    assert len(open_ground_truth(root, "test").annotations[0].labels) == MAX_OBJECTS + 1


def test_box_beyond_the_picture_is_clipped_and_told(write_voc):
    root = write_voc({"train": {"a": [("dog", -3, 5, 50, 31)]}})
    split = open_split(root, "train")
    np.testing.assert_array_equal(split.annotations[0].boxes_xyxy, [[0, 5, 40, 30]])
    (problem,) = split.problems
    assert "a.xml" in problem
    assert "clipped" in problem


@pytest.mark.parametrize(
    "box",
    [(7, 9, 7, 9), (7, 9, 8, 9), (20, 9, 10, 15), (50, 2, 60, 9), (-9, 2, 0, 9)],
    ids=["point", "line", "turned round", "right of the picture", "left of the picture"],
)
def test_box_without_area_is_dropped_and_told(write_voc, box):
    root = write_voc({"train": {"a": [("dog", *box), ("cat", 1, 1, 9, 9)]}})
    split = open_split(root, "train")
    assert split.class_names == ("cat", "dog")
    assert split.annotations[0].labels.tolist() == [1]
    (problem,) = split.problems
    assert "a.xml" in problem
    assert "dropped" in problem


def test_repeated_identifiers_are_dropped_and_told(voc_root):
    (voc_root / "ImageSets/Main/train.txt").write_text("a\nb\na\na\n")
    split = open_split(voc_root, "train")
    assert [a.image_id for a in split.annotations] == ["a", "b"]
    assert [problem.partition(" of ")[0] for problem in split.problems] == ["line 3", "line 4"]
    assert split.problems[1].endswith("train.txt: repeated identifier 'a' dropped, first in line 1")


def test_unknown_split_names_the_known(voc_root):
    (voc_root / "ImageSets/Main/dog_train.txt").write_text("a 1\n")
    with pytest.raises(ValueError, match=r"no split 'val'.*there are: test, train$"):
        open_split(voc_root, "val")


def test_missing_annotation(voc_root):
    (voc_root / "Annotations/b.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.xml"):
        open_split(voc_root, "train")


def test_missing_picture(voc_root):
    (voc_root / "JPEGImages/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/b"):
        open_split(voc_root, "train")


def test_unknown_class_names_file_and_known(voc_root):
    with pytest.raises(ValueError, match=r"a\.xml: unknown class 'cat'; known are: dog, bird"):
        open_split(voc_root, "train", class_names=("dog", "bird"))


@pytest.mark.parametrize("class_names", [(), ("dog", "cat", "dog")])
def test_useless_class_list(voc_root, class_names):
    with pytest.raises(ValueError, match="class"):
        open_split(voc_root, "train", class_names=class_names)


def test_no_object_anywhere(write_voc):
    with pytest.raises(ValueError, match="no object"):
        open_split(write_voc({"train": {"a": []}}), "train")


def test_empty_split(voc_root):
    (voc_root / "ImageSets/Main/train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"train\.txt: the split names no picture"):
        open_split(voc_root, "train")


@pytest.mark.parametrize("value", ["nan", "inf", "twelve", ""])
def test_coordinate_that_is_no_number(voc_root, value):
    rewrite(voc_root, "b", "<xmin>3</xmin>", f"<xmin>{value}</xmin>")
    with pytest.raises(ValueError, match=r"b\.xml: <xmin> of a 'dog'"):
        open_split(voc_root, "train")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<bndbox>", "<bndbox_>"),  # tags no longer match
        ("<name>dog</name>", "<name> </name>"),
        ("<name>dog</name>", ""),
        ("<ymax>8</ymax>", ""),
        ("<difficult>0</difficult>", "<difficult>maybe</difficult>"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY e "x">]><annotation>'),
        ("<annotation>", "<annotation>\x00"),
    ],
)
def test_broken_annotation_names_its_file(voc_root, old, new):
    rewrite(voc_root, "b", old, new)
    with pytest.raises(ValueError, match=r"b\.xml: "):
        open_split(voc_root, "train")


def test_broken_annotation_of_another_split_is_told_too(voc_root):
    (voc_root / "Annotations/d.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"d\.xml: "):
        open_split(voc_root, "train")


def test_file_that_is_no_picture(voc_root):
    (voc_root / "JPEGImages/a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png: not readable as a picture"):
        open_split(voc_root, "train")


def test_truncated_picture_is_told_when_read(voc_root):
    path = voc_root / "JPEGImages/a.png"
    path.write_bytes(path.read_bytes()[:200])
    split = open_split(voc_root, "train")
    with pytest.raises(ValueError, match=r"a\.png: not readable as a picture"):
        split.read_image(0)


def test_fingerprint_changes_with_what_it_stands_for(voc_root):
    def fingerprint(**arguments: object) -> str:
        return open_split(voc_root, "train", **arguments).fingerprint

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    assert len(seen[0]) == 16
    int(seen[0], 16)
    seen.append(fingerprint(class_names=("dog", "cat", "bird")))
    rewrite(voc_root, "b", "<xmin>3</xmin>", "<xmin>4</xmin>")
    seen.append(fingerprint())
    rewrite(voc_root, "b", "<difficult>0</difficult>", "<difficult>1</difficult>")
    seen.append(fingerprint())
    rewrite(voc_root, "b", "<name>dog</name>", "<name>cat</name>")
    seen.append(fingerprint())
    os.utime(voc_root / "JPEGImages/a.png", (1, 1))
    seen.append(fingerprint())
    (voc_root / "ImageSets/Main/train.txt").write_text("a\nb\n")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_open_split_reads_a_root(voc_root):
    split = open_split(str(voc_root), "train", class_names=["cat", "dog"])
    assert split.class_names == ("cat", "dog")


def test_open_split_of_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_split(str(tmp_path / "nowhere"), "train")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is a file"):
        open_split(str(tmp_path / "file"), "train")


def test_open_split_points_into_a_parent_folder(voc_root):
    with pytest.raises(ValueError, match=r"did you mean .*voc\?"):
        open_split(str(voc_root.parent), "train")
    with pytest.raises(ValueError, match=r"there is no ImageSets/Main/\*\.txt \(voc\)"):
        open_split(str(voc_root / "JPEGImages"), "train")
