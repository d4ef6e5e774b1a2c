"""Thousands of broken files: each is read, or refused by a sentence that names it; never anything
else. And what the check says of a file is what a training does with it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from mutations import mutants
from PIL import Image

from ssd_dist.data.coco import read_coco
from ssd_dist.data.pictures import decode, read_header
from ssd_dist.data.problems import DataError, Problem, ProblemList
from ssd_dist.data.readers import open_split
from ssd_dist.data.voc_xml import read_voc_file
from ssd_dist.evaluation.detection_files import read_detections

NUMBERS = [b"NaN", b"-1", b"1e308", b"-1e308", b"1e999", b"9" * 5000, b"0", b"0.5", b"99999999999"]
XML_TOKENS = [
    *NUMBERS,
    b"<!DOCTYPE a [<!ENTITY e 'x'>]>",
    b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'>",
    b"&e;",
    b"&lt;",
    b"&#0;",
    b"&#x1b;",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"<?xml version='1.0' encoding='utf-7'?>",
    b" encoding='rot13'",
    b"<object>",
    b"</object>",
    b"<name>",
    b"</name>",
    b"<bndbox>",
    b"</bndbox>",
    b"<xmin>5</xmin>",
    b"<difficult>2</difficult>",
    b"<size>",
    b"<x>" * 500,
]
JSON_TOKENS = [
    *NUMBERS,
    b"null",
    b"true",
    b'"',
    b'"7"',
    b'"\\ud800"',
    b"\\u0000",
    b"{}",
    b"[]",
    b"[" * 5000,
    b",",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"Infinity",
    b"-Infinity",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"iscrowd": 1, ',
    b'"bbox": [1, 2, 3, 4], ',
    b'"id": 7, ',
    b'"category": "cat", ',
]

XML = [
    b"""<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <filename>a.png</filename>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <object>
    <name>d\xc3\xb6g</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11.5</xmax><ymax>22</ymax></bndbox>
  </object>
  <object><name>cat</name>
    <bndbox><xmin>-5</xmin><ymin>6</ymin><xmax>41</xmax><ymax>30</ymax></bndbox></object>
</annotation>
""",
    b"<annotation><object><name>cat</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax>"
    b"<ymax>30</ymax></bndbox></object></annotation>",
]
COCO = [
    json.dumps(content).encode()
    for content in (
        {
            "images": [{"id": 7, "width": 100, "height": 50}, {"id": "b", "width": 2.5}],
            "annotations": [
                {"image_id": 7, "category_id": 44, "bbox": [1, 2, 10, 20], "iscrowd": 0},
                {"image_id": "b", "category_id": 3, "bbox": [0.1, -2, 5, 5.5], "iscrowd": 1},
            ],
            "categories": [{"id": 44, "name": "bottle"}, {"id": 3, "name": "car"}],
        },
        {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "x"}]},
    )
]
DETECTIONS = [
    json.dumps(rows).encode()
    for rows in (
        [
            {"image_id": 7, "category_id": 44, "bbox": [1, 2, 10, 20.5], "score": 0.9},
            {"image_id": "b", "category": "car", "bbox": [0, 0, 5, 5], "score": 1e-3},
            {"image_id": "7", "category_id": 3, "bbox": [1, 2, 0, 0], "score": 0},
        ],
        [],
    )
]


T = TypeVar("T")


def attempt(read: Callable[[], T]) -> tuple[T | None, ValueError | None]:
    """The result, or the refusal. Any other exception is a failure."""
    try:
        return read(), None
    except ValueError as error:
        return None, error


def refused(problems: ProblemList) -> list[Problem]:
    return [problem for problem in problems if problem.treatment == "refused"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mutant"


def test_annotation_files(path):
    outcomes: Counter[str] = Counter()
    for data in mutants(XML, XML_TOKENS, 5000, seed=1):
        path.write_bytes(data)
        gathered = ProblemList(strict=False)
        file = read_voc_file(path, gathered)
        strictly, error = attempt(lambda: read_voc_file(path, ProblemList(strict=True)))
        assert_agrees(error, gathered, data)
        outcomes["refused" if error else "read"] += 1
        if strictly is None:
            continue
        assert strictly == file
        for found in strictly.objects:
            assert np.isfinite(found.box_xyxy).all()
            assert found.class_name
            assert found.line <= data.count(b"\n") + data.count(b"\r") + 1
    assert outcomes["read"] > 200
    assert outcomes["refused"] > 1000


def assert_agrees(error: ValueError | None, gathered: ProblemList, data: object) -> None:
    """What a training refuses is among what the check gathers, and it refuses nothing else."""
    if error is None:
        assert not refused(gathered), data
    else:
        assert isinstance(error, DataError), data
        assert error.problem in refused(gathered), data
        assert str(error).isprintable(), data


def test_voc_roots(write_voc):
    """The whole reader, which looks at lists and pictures, too."""
    root = write_voc(
        {"train": {"a": [("cat", 1, 2, 11, 22)]}, "test": {"b": [("cat", 1, 1, 9, 9)]}}
    )
    lists = [b"a\n", b"a 1\nb -1\n"]
    list_tokens = [b"../b", b"/etc/passwd", b"\0", b"b", b"\xff", b"\x1b[2J", b"\n", b"x" * 300]
    annotations = mutants(XML, XML_TOKENS, 700, seed=2)
    splits = mutants(lists, list_tokens, 700, seed=3)
    outcomes: Counter[str] = Counter()
    for k, (xml, names) in enumerate(zip(annotations, splits, strict=True)):
        (root / "Annotations/a.xml").write_bytes(xml)
        (root / "ImageSets/Main/train.txt").write_bytes(names if k % 2 else lists[0])
        gathered = ProblemList(strict=False)
        open_split(root, "train", problems=gathered)
        split, error = attempt(lambda: open_split(root, "train"))
        assert_agrees(error, gathered, (xml, names))
        outcomes["refused" if error else "read"] += 1
        if split is None:
            continue
        assert split.problems == gathered.sentences()
        for annotation in split.annotations:
            boxes_xyxy, sides = annotation.boxes_xyxy, (annotation.width, annotation.height)
            assert (boxes_xyxy >= 0).all()
            assert (boxes_xyxy[:, :2] < boxes_xyxy[:, 2:]).all()
            assert (boxes_xyxy[:, 2:] <= sides).all()
    assert outcomes["read"] > 25
    assert outcomes["refused"] > 100


def test_ground_truth_files(path):
    outcomes: Counter[str] = Counter()
    for data in mutants(COCO, JSON_TOKENS, 2500, seed=4):
        path.write_bytes(data)
        gathered = ProblemList(strict=False)
        read_coco(path, gathered)
        truth, error = attempt(lambda: read_coco(path))
        assert_agrees(error, gathered, data)
        outcomes["refused" if error else "read"] += 1
        if truth is None:
            continue
        for annotation in truth.annotations:
            assert np.isfinite(annotation.boxes_xyxy).all()
            assert (annotation.boxes_xyxy[:, :2] <= annotation.boxes_xyxy[:, 2:]).all()
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 200


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_detection_files(path, tmp_path):
    truth_path = tmp_path / "truth.json"
    truth_path.write_bytes(COCO[0])
    truth = read_coco(truth_path)
    outcomes: Counter[str] = Counter()
    for data in mutants(DETECTIONS, JSON_TOKENS, 2500, seed=5):
        path.write_bytes(data)
        detections, error = attempt(lambda: read_detections(path, truth))
        outcomes["refused" if error else "read"] += 1
        if error is not None:
            assert str(error).startswith(f"{path}: "), data
        for found in detections or ():
            assert np.isfinite(found.scores).all()
            assert set(found.labels.tolist()) <= {1, 2}
    assert outcomes["read"] > 200
    assert outcomes["refused"] > 200


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
def test_pictures(path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (13, 17, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    originals = []
    for kind, arguments in [
        ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("PNG", {"exif": exif}),
        ("GIF", {"save_all": True, "append_images": [colours.rotate(90)]}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ]:
        file = io.BytesIO()
        colours.save(file, format=kind, **arguments)
        originals.append(file.getvalue())
    tokens = [b"\xff\xd8", b"\xff\xd9", b"IEND", b"\xff" * 4, b"\0" * 4, b"\x7f" * 4, b"II*\0"]
    outcomes: Counter[str] = Counter()
    for data in mutants(originals, tokens, 700, seed=6):
        path.write_bytes(data)
        header = read_header(path, ProblemList(strict=False))
        pixels, error = attempt(lambda: decode(path))
        outcomes["refused" if error else "read"] += 1
        if pixels is None:
            assert str(error).startswith(f"{path}: "), data
            assert str(error).isprintable(), data
        else:
            assert header is not None, data
            assert pixels.shape == (header.height, header.width, 3)
            assert pixels.dtype == np.uint8
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 100
