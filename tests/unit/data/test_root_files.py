"""Nothing is read that lies outside the root, is no plain file, or would fill the memory."""

from __future__ import annotations

import os
import shutil

import pytest

from ssd_dist.data import root_files, voc_layout
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import open_split
from ssd_dist.data.root_files import is_file_name


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "..\\a", "a\0"])
def test_paths_are_no_file_names(name):
    assert not is_file_name(name)


@pytest.mark.parametrize("name", ["a", "2008_000001", "a.b", "...", "~", "-rf", "C:", "été"])
def test_file_names(name):
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/a", "..", "..\\secret"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_identifier_with_a_path_in_it_is_refused(voc_root, name, split):
    path = voc_root / f"ImageSets/Main/{split}.txt"
    (voc_root / "secret.xml").write_text("<annotation/>")
    path.write_text(path.read_text() + f"{name}\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(ValueError, match=rf"line {line} of .*{split}\.txt: the identifier .* path"):
        open_split(voc_root, "train")


@pytest.mark.parametrize(
    "part", ["Annotations/a.xml", "JPEGImages/a.png", "ImageSets/Main/train.txt"]
)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_link_that_leads_out_is_refused(voc_root, tmp_path, part, folder):
    inside = voc_root / part
    moved = inside.parent if folder else inside
    target = tmp_path / "elsewhere"
    shutil.move(moved, target)
    moved.symlink_to(target)
    with pytest.raises(ValueError, match=r"leads to .*elsewhere.*, outside the data set's folder"):
        open_split(voc_root, "train")


def test_link_that_stays_inside_is_followed(voc_root):
    (voc_root / "JPEGImages/a.png").rename(voc_root / "real.png")
    (voc_root / "JPEGImages/a.png").symlink_to("../real.png")
    assert open_split(voc_root, "train").problems == ()


def test_root_may_be_a_link_itself(voc_root, tmp_path):
    (tmp_path / "link").symlink_to(voc_root)
    assert open_split(tmp_path / "link", "train").problems == ()


def test_link_in_a_circle_is_refused(voc_root):
    path = voc_root / "JPEGImages/a.png"
    path.unlink()
    path.symlink_to("a.png")
    with pytest.raises(ValueError, match=r"a\.png: not readable: Too many levels"):
        open_split(voc_root, "train")


@pytest.mark.parametrize(
    "part", ["Annotations/a.xml", "JPEGImages/a.png", "ImageSets/Main/test.txt"]
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(voc_root, part, make):
    (voc_root / part).unlink()
    make(voc_root / part)
    with pytest.raises(ValueError, match="not a plain file"):
        open_split(voc_root, "train")


def test_text_files_have_a_limit(voc_root, monkeypatch):
    path = voc_root / "Annotations/a.xml"
    with path.open("r+b") as file:
        file.truncate(root_files.MAX_TEXT_BYTES + 1)  # without taking so much of the disk
    with pytest.raises(ValueError, match=r"a\.xml: 64 MiB, more than the 64 MiB"):
        open_split(voc_root, "train")
    (voc_root / "Annotations/a.xml").write_text("<annotation/>")
    monkeypatch.setattr(voc_layout, "MAX_TEXT_BYTES", 3)
    with pytest.raises(ValueError, match=r"train\.txt: 0 MiB, more than"):
        open_split(voc_root, "train")


def test_list_that_is_no_text_is_told_with_its_line(voc_root):
    (voc_root / "ImageSets/Main/train.txt").write_bytes(b"a\nb\n\xff\xfe\n")
    problems = ProblemList(strict=False)
    assert len(open_split(voc_root, "train", problems=problems).annotations) == 0
    first = next(iter(problems))
    assert (first.kind, first.line) == ("broken_annotation", 3)


def told(root, split):
    return [
        (p.kind, p.file.rpartition("/")[2], p.line, p.message) for p in problems_of(root, split)
    ]


def problems_of(root, split):
    problems = ProblemList(strict=True)
    open_split(root, split, problems=problems)
    return list(problems)


def test_picture_in_two_splits_is_told_alike_from_both_sides(write_voc):
    dog = [("dog", 1, 1, 9, 9)]
    root = write_voc({"train": {"a": dog, "b": dog}, "val": {"c": dog, "b": dog}})
    words = (
        "'b' is in the splits train and val (line 2): what is learned there counts as found here"
    )
    assert told(root, "train") == told(root, "val") == [("shared_id", "train.txt", 2, words)]


def test_split_that_others_make_up_shares_nothing(write_voc):
    dog = [("dog", 1, 1, 9, 9)]
    root = write_voc(
        {
            "train": {"a": dog},
            "val": {"b": dog},
            "trainval": {"b": dog, "a": dog},
            "test": {"c": dog},
        }
    )
    for split in ("train", "val", "trainval", "test"):
        assert told(root, split) == []
    # A validation split within the training split is no such union.
    (root / "ImageSets/Main/trainval.txt").unlink()
    (root / "ImageSets/Main/train.txt").write_text("a\nb\n")
    assert [kind for kind, *_ in told(root, "val")] == ["shared_id"]
