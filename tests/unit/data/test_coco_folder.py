"""The COCO reader of a training: what pycocotools finds in a file, and where splits lie."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from formats import SIZE, SPLITS, write_coco, write_pictures
from pycocotools.coco import COCO

from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import find_reader, open_ground_truth, open_split, split_names


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "coco"
    write_coco(folder, SPLITS)
    return folder


def rewrite(root, change, split="train"):
    path = root / f"annotations/instances_{split}2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def random_file(root, seed):
    """Pictures with ids and categories out of order and with gaps, crowds, pictures without
    objects, boxes with fractions inside their pictures."""
    rng = np.random.default_rng(seed)
    stems = [f"{i:03d}" for i in range(12)]
    write_pictures(root / "train", {"train": dict.fromkeys(stems, ())})
    image_ids = rng.permutation(1000)[:12].tolist()
    category_ids = rng.permutation(90)[:6].tolist()
    annotations = []
    for image_id in image_ids[::2]:
        for _ in range(rng.integers(1, 6)):
            x, y = rng.uniform(0, 20, 2).round(2).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 5,
                    "image_id": image_id,
                    "category_id": int(rng.choice(category_ids)),
                    "bbox": [x, y, *rng.uniform(1, 10, 2).round(2).tolist()],
                    "area": 1.0,
                    "iscrowd": int(rng.random() < 0.3),
                }
            )
    rng.shuffle(annotations)
    content = {
        "images": [
            {"id": i, "file_name": f"{stem}.png", "width": SIZE[0], "height": SIZE[1]}
            for i, stem in zip(image_ids, stems, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i:02d}"} for i in category_ids],
    }
    (root / "annotations").mkdir()
    path = root / "annotations/train.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_finds_the_same(tmp_path, seed):
    path = random_file(tmp_path, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    names = {each["id"]: each["name"] for each in reference.dataset["categories"]}
    for read in (open_split(tmp_path, "train"), open_ground_truth(path, "")):
        assert len(read.annotations) == len(reference.imgs) == 12
        assert sum(len(each.labels) for each in read.annotations) == len(reference.anns)
        assert any(each.difficult.any() for each in read.annotations)
        for annotation in read.annotations:
            theirs = reference.loadAnns(reference.getAnnIds(imgIds=[int(annotation.image_id)]))
            x1, y1, w, h = np.array([each["bbox"] for each in theirs]).reshape(-1, 4).T
            np.testing.assert_array_equal(
                annotation.boxes_xyxy,
                np.stack([x1, y1, x1 + w, y1 + h], 1).astype(annotation.boxes_xyxy.dtype),
            )
            assert [read.class_names[i - 1] for i in annotation.labels] == [
                names[each["category_id"]] for each in theirs
            ]
            assert annotation.difficult.tolist() == [bool(each["iscrowd"]) for each in theirs]


def test_splits_by_short_and_full_name(root):
    assert split_names(root) == ["train", "val"]
    full, short = open_split(root, "train2017"), open_split(root, "train")
    assert full.fingerprint == short.fingerprint
    (root / "annotations/instances_train2014.json").write_text("{}")
    assert split_names(root) == ["train2014", "train2017", "val"]
    for other in ("captions_val2017", "image_info_test2017"):
        (root / f"annotations/{other}.json").write_text("{}")
    assert split_names(root) == ["train2014", "train2017", "val"]


def test_roboflow_layout(root):
    for split, folder in (("train2017", "train"), ("val2017", "valid")):
        (root / split).rename(root / folder)
        path = root / f"annotations/instances_{split}.json"
        path.rename(root / folder / "_annotations.coco.json")
    (root / "annotations").rmdir()
    assert split_names(root) == ["train", "val"]
    assert len(open_split(root, "val").annotations) == 1
    assert len(open_split(root, "valid").annotations) == 1


@pytest.mark.parametrize("folder", ["train", "images/train2017", "images", "."])
def test_places_of_pictures(root, folder):
    if folder == "train":
        rewrite(
            root, lambda c: [i.update(file_name=f"train/{i['file_name']}") for i in c["images"]]
        )
    target = root / folder
    target.mkdir(parents=True, exist_ok=True)
    for path in (root / "train2017").iterdir():
        path.rename(target / path.name)
    (root / "train2017").rmdir()
    assert len(open_split(root, "train").annotations) == 4


def test_classes_are_those_of_all_splits(root):
    rewrite(root, lambda c: c["categories"].append({"id": 50, "name": "aphid"}), "val")
    assert open_split(root, "train").class_names == ("ant", "aphid", "bee")
    assert open_split(root, "train").annotations[0].labels.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda c: c["categories"][0].update(name=""),
            "bad_class_name",
            "the category of id 90 has no name",
        ),
        (
            lambda c: c["categories"][0].pop("name"),
            "broken_annotation",
            r"categories\[0\] has no 'name'",
        ),
        (lambda c: c["images"][1].update(id=7), "repeated_entry", "have the same id 7"),
        (lambda c: c["categories"][0].update(name="bee"), "repeated_entry", "the same name 'bee'"),
        (lambda c: c["images"][1].pop("file_name"), "broken_annotation", r"images\[1\] has no 'fi"),
        (
            lambda c: c["images"][1].update(file_name="../b.png"),
            "outside_root",
            r"images\[1\]\.file_name is '\.\./b\.png', which leads out",
        ),
        (lambda c: c["images"][1].update(file_name="/b.png"), "outside_root", "which leads out"),
        (lambda c: c["images"][1].update(file_name="x.png"), "missing_file", r"images\[1\] of ins"),
        (lambda c: c["annotations"][0].update(image_id=8), "missing_image", "image_id is 8, which"),
        (lambda c: c["annotations"][0].update(category_id=8), "unknown_class", "category_id is 8"),
    ],
)
def test_bad_file(root, change, kind, message):
    rewrite(root, change)
    with pytest.raises(ValueError, match=message) as error:
        open_split(root, "train")
    assert "\n" not in str(error.value)
    problems = ProblemList(strict=False)
    open_split(root, "train", problems=problems)
    assert kind in {problem.kind for problem in problems}


def test_size_that_is_not_the_pictures(root):
    rewrite(root, lambda c: c["images"][0].update(width=41))
    opened = open_split(root, "train")
    assert (opened.annotations[0].width, opened.annotations[0].height) == SIZE
    (problem,) = opened.problems
    assert problem.endswith("images[0]: its size 41x30 ignored: the picture is 40x30")


def test_problems_name_their_place(root):
    rewrite(root, lambda c: c["annotations"][1].update(bbox=[30, 5, 20, 5]))
    problems = ProblemList(strict=True)
    open_split(root, "train", problems=problems)
    (problem,) = problems
    assert problem.place == "annotations[1]"
    assert "annotations[1]: 'ant' box (30, 5, 50, 10) clipped" in str(problem)


def test_folder_of_two_formats_asks_which(root):
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("a")
    with pytest.raises(ValueError, match="could be voc or coco: say which with --format"):
        find_reader(root)
    assert len(open_split(root, "train", data_format="coco").annotations) == 4
    with pytest.raises(ValueError, match="no data format 'cocoo'; there are: auto, voc, coco, y"):
        find_reader(root, "cocoo")
