"""The VOC reader: values by hand, and a rule for every kind of bad input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_dist.data import open_split
from ssd_dist.data.voc import read_voc


def rewrite(root: Path, image_id: str, old: str, new: str) -> Path:
    path = root / "Annotations" / f"{image_id}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_what_stands_in_the_files_is_what_comes_out(voc_root):
    split = read_voc(voc_root, "train")
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
    empty = read_voc(voc_root, "train").annotations[2]
    assert empty.boxes_xyxy.shape == (0, 4)
    assert empty.labels.shape == empty.difficult.shape == (0,)
    assert empty.labels.dtype == np.int64


def test_all_splits_number_the_classes_alike(voc_root):
    train, test = read_voc(voc_root, "train"), read_voc(voc_root, "test")
    assert train.class_names == test.class_names
    assert test.annotations[0].labels.tolist() == [1]


def test_splits_without_annotations_do_not_hinder_the_others(voc_root):
    (voc_root / "ImageSets/Main/challenge.txt").write_text("not_published\n")
    assert read_voc(voc_root, "train").class_names == ("bird", "cat", "dog")


def test_given_classes_number_as_given(voc_root):
    split = read_voc(voc_root, "train", class_names=["dog", "horse", "cat"])
    assert split.class_names == ("dog", "horse", "cat")
    assert split.annotations[0].labels.tolist() == [1, 3]


def test_per_class_file_with_two_columns(voc_root):
    (voc_root / "ImageSets/Main/dog_train.txt").write_text("a  1\nc -1\n\n")
    split = read_voc(voc_root, "dog_train")
    assert [a.image_id for a in split.annotations] == ["a", "c"]


def test_parts_of_an_object_are_no_objects(voc_root):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    rewrite(voc_root, "b", "</object>", part)
    split = read_voc(voc_root, "train")
    assert "head" not in split.class_names
    assert len(split.annotations[1].labels) == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_pictures_come_as_rgb(voc_root, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    (voc_root / "JPEGImages/a.png").unlink()
    Image.new("RGB", (40, 30), (200, 0, 0)).convert(mode).save(voc_root / f"JPEGImages/a.{suffix}")
    pixels = read_voc(voc_root, "train").read_image(0)
    assert pixels.shape == (30, 40, 3)
    assert pixels.dtype == np.uint8


def test_exif_orientation_leaves_pixels_where_the_boxes_are(voc_root):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 255
    (voc_root / "JPEGImages/a.png").unlink()
    Image.fromarray(pixels).save(voc_root / "JPEGImages/a.jpg", exif=exif, quality=95)
    split = read_voc(voc_root, "train")
    assert (split.annotations[0].width, split.annotations[0].height) == (40, 30)
    assert np.abs(split.read_image(0).astype(int) - pixels).max() < 8


def test_size_is_the_pictures_own(voc_root):
    rewrite(voc_root, "a", "<width>40</width>", "<width>4000</width>")
    rewrite(voc_root, "b", "<size><width>40</width><height>30</height></size>", "")
    for annotation in read_voc(voc_root, "train").annotations[:2]:
        assert (annotation.width, annotation.height) == (40, 30)


def test_box_beyond_the_picture_is_clipped_and_told(write_voc):
    root = write_voc({"train": {"a": [("dog", -3, 5, 50, 31)]}})
    split = read_voc(root, "train")
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
    split = read_voc(root, "train")
    assert split.class_names == ("cat", "dog")
    assert split.annotations[0].labels.tolist() == [1]
    (problem,) = split.problems
    assert "a.xml" in problem
    assert "dropped" in problem


def test_repeated_identifiers_are_dropped_and_told(voc_root):
    (voc_root / "ImageSets/Main/train.txt").write_text("a\nb\na\na\n")
    split = read_voc(voc_root, "train")
    assert [a.image_id for a in split.annotations] == ["a", "b"]
    (problem,) = split.problems
    assert "train.txt: 2 repeated identifiers dropped (a)" in problem


def test_unknown_split_names_the_known(voc_root):
    (voc_root / "ImageSets/Main/dog_train.txt").write_text("a 1\n")
    with pytest.raises(ValueError, match=r"no split 'val'.*there are: test, train$"):
        read_voc(voc_root, "val")


def test_missing_annotation(voc_root):
    (voc_root / "Annotations/b.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.xml"):
        read_voc(voc_root, "train")


def test_missing_picture(voc_root):
    (voc_root / "JPEGImages/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/b"):
        read_voc(voc_root, "train")


def test_unknown_class_names_file_and_known(voc_root):
    with pytest.raises(ValueError, match=r"a\.xml: unknown class 'cat'; known are: dog, bird"):
        read_voc(voc_root, "train", class_names=("dog", "bird"))


@pytest.mark.parametrize("class_names", [(), ("dog", "cat", "dog")])
def test_useless_class_list(voc_root, class_names):
    with pytest.raises(ValueError, match="class"):
        read_voc(voc_root, "train", class_names=class_names)


def test_no_object_anywhere(write_voc):
    with pytest.raises(ValueError, match="no object"):
        read_voc(write_voc({"train": {"a": []}}), "train")


def test_empty_split(voc_root):
    (voc_root / "ImageSets/Main/train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"train\.txt: the split names no picture"):
        read_voc(voc_root, "train")


@pytest.mark.parametrize("value", ["nan", "inf", "twelve", ""])
def test_coordinate_that_is_no_number(voc_root, value):
    rewrite(voc_root, "b", "<xmin>3</xmin>", f"<xmin>{value}</xmin>")
    with pytest.raises(ValueError, match=r"b\.xml: <xmin> of a 'dog'"):
        read_voc(voc_root, "train")


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
        read_voc(voc_root, "train")


def test_broken_annotation_of_another_split_is_told_too(voc_root):
    (voc_root / "Annotations/d.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"d\.xml: "):
        read_voc(voc_root, "train")


def test_file_that_is_no_picture(voc_root):
    (voc_root / "JPEGImages/a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png: not readable as a picture"):
        read_voc(voc_root, "train")


def test_truncated_picture_is_told_when_read(voc_root):
    path = voc_root / "JPEGImages/a.png"
    path.write_bytes(path.read_bytes()[:200])
    split = read_voc(voc_root, "train")
    with pytest.raises(ValueError, match=r"a\.png: not readable as a picture"):
        split.read_image(0)


def test_fingerprint_changes_with_what_it_stands_for(voc_root):
    def fingerprint(**arguments: object) -> str:
        return read_voc(voc_root, "train", **arguments).fingerprint

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
    with pytest.raises(ValueError, match=r"ImageSets/Main/\*\.txt is missing$"):
        open_split(str(voc_root / "JPEGImages"), "train")
