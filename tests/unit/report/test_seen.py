"""Whether a detector has seen the pictures that it is evaluated on is told by the pictures."""

import numpy as np
import pytest
from PIL import Image

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import Config
from ssd_dist.data import open_split
from ssd_dist.report.seen import count_seen

SPLITS = {"train": "ab", "val": "c", "trainval": "abc", "test": "d", "half": "cd"}


@pytest.fixture
def voc(tmp_path):
    """Four pictures with an ant each."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "VOC" / folder).mkdir(parents=True)
    for split, stems in SPLITS.items():
        (tmp_path / f"VOC/ImageSets/Main/{split}.txt").write_text("\n".join(stems))
    for stem in "abcd":
        pixels = np.full((30, 40, 3), ord(stem), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"VOC/JPEGImages/{stem}.png")
        (tmp_path / f"VOC/Annotations/{stem}.xml").write_text(
            "<annotation><object><name>ant</name><bndbox><xmin>3</xmin><ymin>3</ymin>"
            "<xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"
        )
    return tmp_path / "VOC"


def trained_on(data):
    train = open_split(data, "train")
    return Checkpoint(
        config=Config(), class_names=train.class_names, data=str(data),
        data_fingerprint=train.fingerprint, epoch=1, metrics={}, history=(), weights={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("split", "expected"), [("train", 2), ("val", 1), ("trainval", 3), ("test", 0), ("half", 1)]
)
def test_pictures_are_counted_under_whatever_name(voc, split, expected):
    assert count_seen(trained_on(voc), open_split(voc, split), str(voc)) == expected


def test_equal_ids_in_several_splits_are_different_pictures(tmp_path):
    for split in ("train", "val", "test"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        pixels = np.full((30, 40, 3), len(split), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{split}/1.png")
        (tmp_path / f"labels/{split}/1.txt").write_text("0 0.5 0.5 0.4 0.4")
    (tmp_path / "data.yaml").write_text(
        "train: images/train\nval: images/val\ntest: images/test\nnames: [ant]"
    )
    checkpoint = trained_on(tmp_path)
    splits = {name: open_split(tmp_path, name) for name in ("train", "test")}
    assert {split.annotations[0].image_id for split in splits.values()} == {"1"}
    assert count_seen(checkpoint, splits["test"], str(tmp_path)) == 0
    assert count_seen(checkpoint, splits["train"], str(tmp_path)) == 1


def test_embedded_pictures():
    checkpoint = trained_on("synthetic")
    assert count_seen(checkpoint, open_split("synthetic", "test"), "synthetic") == 0
    val = open_split("synthetic", "val")
    assert count_seen(checkpoint, val, "synthetic") == len(val.annotations)


def test_nothing_is_said_of_other_data_or_without_the_splits(voc):
    checkpoint = trained_on(voc)
    assert count_seen(checkpoint, open_split("synthetic", "test"), "synthetic") is None
    test = open_split(voc, "test")
    (voc / "ImageSets/Main/val.txt").unlink()
    assert count_seen(checkpoint, test, str(voc)) is None
    (voc / "Annotations/a.xml").write_text("broken")
    assert count_seen(checkpoint, test, str(voc)) is None
