"""The drawn data: reproducible, balanced, and its boxes are those of what is drawn."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from ssd_dist.data import open_split
from ssd_dist.data.synthetic import CLASS_NAMES, NUM_IMAGES, _mask, synthetic_split


def test_same_seed_same_picture():
    one, two = synthetic_split("val", num_images=4), synthetic_split("val", num_images=4)
    assert one.fingerprint == two.fingerprint
    for index in (3, 0):  # in any order
        np.testing.assert_array_equal(one.read_image(index), two.read_image(index))


def test_longer_split_begins_with_the_shorter():
    short, long = synthetic_split("train", num_images=2), synthetic_split("train", num_images=5)
    np.testing.assert_array_equal(short.read_image(1), long.read_image(1))
    np.testing.assert_array_equal(short.annotations[1].boxes_xyxy, long.annotations[1].boxes_xyxy)
    assert short.fingerprint != long.fingerprint


def test_other_seed_or_split_other_pictures():
    splits = [
        synthetic_split("train", num_images=1),
        synthetic_split("val", num_images=1),
        synthetic_split("train", num_images=1, seed=1),
    ]
    digests = {hashlib.sha256(split.read_image(0).tobytes()).hexdigest() for split in splits}
    assert len(digests) == 3
    assert len({split.fingerprint for split in splits}) == 3


def test_annotations_keep_the_contract():
    for name, count in NUM_IMAGES.items():
        split = open_split("synthetic", name)
        assert len(split.annotations) == count
        assert len({a.image_id for a in split.annotations}) == count
        for annotation in split.annotations:
            boxes = annotation.boxes_xyxy
            assert boxes.dtype == np.float32
            assert annotation.labels.dtype == np.int64
            assert 1 <= len(boxes) == len(annotation.labels) == len(annotation.difficult) <= 5
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= (annotation.width, annotation.height)).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()
            longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
            shorter_side = min(annotation.width, annotation.height)
            assert (longest >= 0.15 * shorter_side).all()
            assert (longest <= 0.51 * shorter_side).all()


def test_all_classes_occur_about_as_often():
    split = synthetic_split("train")
    counts = np.bincount(np.concatenate([a.labels for a in split.annotations]), minlength=6)
    assert counts[0] == 0
    assert counts[1:].min() > 0.7 * counts[1:].max()


def test_pictures_have_the_size_of_their_annotation():
    split = synthetic_split("test", num_images=6)
    for index, annotation in enumerate(split.annotations):
        pixels = split.read_image(index)
        assert pixels.shape == (annotation.height, annotation.width, 3)
        assert pixels.dtype == np.uint8


def test_boxes_are_tight_around_the_mask():
    split = synthetic_split("val", num_images=20)
    for annotation, scene in zip(split.annotations, split.scenes, strict=True):
        for box_xyxy, shape in zip(annotation.boxes_xyxy, scene, strict=True):
            mask, (left, top) = _mask(shape.outline)
            x1, y1, x2, y2 = mask.point(lambda value: 255 if value > 16 else 0).getbbox()
            drawn_xyxy = np.array([x1 + left, y1 + top, x2 + left, y2 + top])
            # A corner may cover so little of its pixel that it does not show.
            assert np.abs(drawn_xyxy - box_xyxy).max() <= 1.6


def test_front_object_is_drawn_where_its_box_is():
    """With one object fewer, only pixels inside that object's box change."""
    split = synthetic_split("val", num_images=30)
    index = next(i for i, scene in enumerate(split.scenes) if len(scene) >= 2)
    scenes = list(split.scenes)
    scenes[index] = scenes[index][:-1]
    fewer = dataclasses.replace(split, scenes=tuple(scenes))
    # Noise that is drawn after the objects differs by 20 grey values at most.
    change = np.abs(split.read_image(index).astype(int) - fewer.read_image(index)).max(axis=2)
    rows, columns = np.nonzero(change > 20)
    x1, y1, x2, y2 = split.annotations[index].boxes_xyxy[-1]
    assert columns.min() >= x1 - 1
    assert columns.max() <= x2 + 1
    assert rows.min() >= y1 - 1
    assert rows.max() <= y2 + 1
    assert len(rows) > 0.2 * (x2 - x1) * (y2 - y1)


def test_no_object_is_mostly_hidden():
    for scene in synthetic_split("train", num_images=60).scenes:
        boxes = np.array([shape.box_xyxy for shape in scene])
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            others = np.delete(boxes, index, axis=0)
            width = np.minimum(x2, others[:, 2]) - np.maximum(x1, others[:, 0])
            height = np.minimum(y2, others[:, 3]) - np.maximum(y1, others[:, 1])
            covered = width.clip(0) * height.clip(0) / ((x2 - x1) * (y2 - y1))
            assert (covered <= 0.25 + 1e-6).all()


def test_given_classes_number_as_given():
    names = ("nothing", *reversed(CLASS_NAMES))
    plain, numbered = (
        synthetic_split("val", num_images=5, class_names=given) for given in (None, names)
    )
    assert numbered.class_names == names
    for a, b in zip(plain.annotations, numbered.annotations, strict=True):
        assert [plain.class_names[i - 1] for i in a.labels] == [names[i - 1] for i in b.labels]


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"no split 'trainval'.*train, val, test"):
        open_split("synthetic", "trainval")
    with pytest.raises(ValueError, match="'cross'; known are: dog, cat"):
        open_split("synthetic", "val", class_names=["dog", "cat"])
    with pytest.raises(ValueError, match="num_images"):
        synthetic_split("val", num_images=0)
