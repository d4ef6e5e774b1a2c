"""`python -m ssd_dist.data show`: the page of a data set."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_dist.data.__main__ import run

NAME = "<script>alert(1)</script>"


@pytest.fixture
def root(tmp_path) -> Path:
    """A COCO folder: 5 pictures in `train`, one without objects, a crowd, a class with markup."""
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/train").mkdir()
    annotations, images = [], []
    for i in range(5):
        Image.fromarray(np.full((48, 64, 3), 40 * i, np.uint8)).save(
            tmp_path / f"coco/train/p{i}.png"
        )
        images.append({"id": i, "file_name": f"p{i}.png", "width": 64, "height": 48})
        if i:
            box = [4, 4, 8 * i, 8]
            annotations.append(
                {"image_id": i, "category_id": 1 + i % 2, "bbox": box, "iscrowd": int(i == 4)}
            )
    categories = [{"id": 1, "name": NAME}, {"id": 2, "name": "b & c"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco/annotations/train.json").write_text(json.dumps(content))
    return tmp_path / "coco"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(root, tmp_path):
    out = tmp_path / "out/page.html"
    assert run(["show", str(root), "--out", str(out), "--pictures", "3"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    return out.read_text(encoding="utf-8")


def test_pictures_stand_there_with_their_boxes(page):
    parser = _Tags()
    parser.feed(page)
    images = [attributes for tag, attributes in parser.tags if tag == "image"]
    assert len(images) == 3
    assert all(each["href"].startswith("data:image/jpeg;base64,") for each in images)
    boxes = [a for tag, a in parser.tags if tag == "rect" and a.get("class") == "line"]
    # Of pictures 0, 1 and 3: none, and one each.
    assert [float(box["width"]) for box in boxes] == [8, 24]
    assert [float(box["x"]) for box in boxes] == [4, 4]


def test_numbers(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "5 pictures with 3 objects that count, of 2 classes" in text
    assert "train 5 1 4 1" in text  # pictures, without objects, objects, difficult


def test_names_are_escaped_and_nothing_is_fetched(page):
    parser = _Tags()
    parser.feed(page)
    assert NAME not in page
    assert "&lt;script&gt;alert(1)" in page
    assert sum(tag == "script" for tag, _ in parser.tags) == 1
    for tag, attributes in parser.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
    assert "prefers-color-scheme: dark" in page
    assert "#05060" not in page  # placeholders of colours


def test_a_class_without_objects_and_a_split_without_any(root, tmp_path):
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    content["annotations"] = []
    path.write_text(json.dumps(content))
    out = tmp_path / "empty.html"
    assert run(["show", str(root), "--out", str(out)]) == 0
    assert "0</b> objects that count" in out.read_text(encoding="utf-8")


def test_synthetic_data(tmp_path):
    out = tmp_path / "page.html"
    flags = ["--split", "val", "--pictures", "1"]
    assert run(["show", "synthetic", *flags, "--out", str(out)]) == 0
    assert "val_00000" in out.read_text(encoding="utf-8")


def test_what_is_refused_leaves_nothing(root, tmp_path, capsys):
    (root / "train/p3.png").write_bytes(b"")
    out = tmp_path / "page.html"
    assert run(["show", str(root), "--out", str(out)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
    assert run(["show", str(root), "--out", str(tmp_path)]) == 1
    assert "is a folder; give a file" in capsys.readouterr().err
