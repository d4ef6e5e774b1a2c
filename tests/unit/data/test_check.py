"""`python -m ssd_dist.data check`: all that is wrong, where, and what a training does about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ssd_dist.data.__main__ import run
from ssd_dist.data.cache import open_cache
from ssd_dist.data.inspection import inspect_data
from ssd_dist.data.problems import KINDS
from ssd_dist.data.readers import open_split
from ssd_dist.terminal import Terminal
from ssd_dist.training import Preparation

DOG = ("dog", 1, 1, 20, 20)


def rewrite(old: str, new: str) -> Callable:
    def change(root):
        path = root / "Annotations/b.xml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def objects(*boxes: tuple) -> Callable:
    parts = "".join(
        f"<object><name>dog</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    return rewrite("</annotation>", parts + "</annotation>")


def picture(mode: str = "RGB", suffix: str = "png", **arguments: object) -> Callable:
    def change(root):
        (root / "JPEGImages/b.png").unlink()
        image = Image.new("RGB", (40, 30), (1, 2, 3)).convert(mode)
        image.save(root / f"JPEGImages/b.{suffix}", **arguments)

    return change


def bytes_of_picture(content: bytes) -> Callable:
    return lambda root: (root / "JPEGImages/b.png").write_bytes(content)


def line_in_list(line: str, split: str = "train") -> Callable:
    def change(root):
        path = root / f"ImageSets/Main/{split}.txt"
        path.write_text(path.read_text() + line + "\n")

    return change


def link_out(root):
    path = root / "Annotations/b.xml"
    shutil.move(path, root.parent / "b.xml")
    path.symlink_to(root.parent / "b.xml")


def turned(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB", "jpg", exif=exif)(root)
    rewrite("<width>40</width><height>30</height>", "<width>30</width><height>40</height>")(root)


def sideways(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB", "jpg", exif=exif)(root)


def header_of_a_bomb(root):
    path = root / "JPEGImages/b.bmp"
    (root / "JPEGImages/b.png").unlink()
    Image.new("L", (2, 2)).save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = (20_000).to_bytes(4, "little") * 2
    path.write_bytes(data)


def sixteen_bits(root):
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(root / "JPEGImages/b.png")


def float_pixels(root):
    picture("F", "tiff")(root)


CASES: dict[str, Callable] = {
    "missing_file": lambda root: (root / "Annotations/b.xml").unlink(),
    "outside_root": link_out,
    "unusable_file": lambda root: [
        (root / "JPEGImages/b.png").unlink(),
        (root / "JPEGImages/b.png").mkdir(),
    ],
    "empty_split": lambda root: (root / "ImageSets/Main/test.txt").write_text("\n"),
    "repeated_id": line_in_list("b"),
    "shared_id": line_in_list("c"),
    "same_pixels": lambda root: shutil.copy(root / "JPEGImages/c.png", root / "JPEGImages/b.png"),
    "second_picture": lambda root: Image.new("L", (40, 30)).save(root / "JPEGImages/b.webp"),
    "broken_annotation": rewrite("</size>", ""),
    "forbidden_xml": rewrite("<annotation>", "<!DOCTYPE a [<!ENTITY e 'x'>]><annotation>"),
    "repeated_element": rewrite("</size>", "</size><size/>"),
    "other_size": rewrite("<width>40", "<width>41"),
    "turned_annotation": turned,
    "bad_class_name": rewrite("<name>dog</name>", "<name/>"),
    "unknown_class": rewrite("<name>dog</name>", "<name>wolf</name>"),
    "bad_difficult": rewrite("</name>", "</name><difficult>2</difficult>"),
    "bad_coordinate": rewrite("<xmin>1<", "<xmin>nan<"),
    "too_many_objects": objects(*((i % 30, i // 40, 40, 30) for i in range(1001))),
    "repeated_object": objects((1, 1, 20, 20)),
    "box_swapped": objects((20, 1, 9, 20)),
    "box_without_area": objects((9, 1, 9, 20)),
    "box_outside": objects((41, 1, 50, 20)),
    "box_clipped": objects((-4, 1, 12, 20)),
    "unreadable_picture": bytes_of_picture(b"no picture"),
    "picture_bomb": header_of_a_bomb,
    "unsupported_pixels": float_pixels,
    "orientation": sideways,
    "more_frames": lambda root: Image.new("RGB", (40, 30)).save(
        root / "JPEGImages/b.png", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")]
    ),
    "sixteen_bits": sixteen_bits,
    "cmyk": picture("CMYK", "jpg"),
    "transparency": picture("RGBA"),
}
"""Kind → what makes the data set have a problem of it."""

ALONG = {"turned_annotation": {"orientation"}, "too_many_objects": {"repeated_object"}}
"""Kind → what else it comes with."""


@pytest.fixture
def root(write_voc):
    return write_voc({"train": {"a": [DOG], "b": [DOG]}, "test": {"c": [DOG]}})


def gathered(root) -> list:
    return list(inspect_data(str(root), ["train", "test"], ["dog"]).problems)


def train(root, folder) -> list[str]:
    """What a training does with the data before it begins; returns what it tells."""
    told = []
    for name in ("train", "test"):
        split = open_split(str(root), name, ["dog"])
        open_cache(split, 64, folder)
        told += split.problems
    return told


def test_every_kind_has_a_case():
    # See below, test_coco.py and test_yolo.py.
    elsewhere = {"no_class", "missing_image", "repeated_entry", "bad_columns"}
    assert set(CASES) | elsewhere == set(KINDS)


def test_nothing_is_wrong(root, tmp_path):
    assert gathered(root) == []
    assert train(root, tmp_path / "cache") == []


@pytest.mark.parametrize("kind", CASES)
def test_training_does_what_the_check_says(root, tmp_path, kind):
    CASES[kind](root)
    problems = gathered(root)
    assert {problem.kind for problem in problems} - ALONG.get(kind, set()) == {kind}
    first = problems[0]
    if first.treatment == "refused":
        error = FileNotFoundError if kind == "missing_file" else ValueError
        with pytest.raises(error) as caught:
            train(root, tmp_path / "cache")
        assert str(caught.value) == str(first)
    else:
        told = train(root, tmp_path / "cache")
        if kind != "same_pixels":  # which only the check looks for
            assert set(told) == {str(problem) for problem in problems}


def test_truncated_picture_is_found_though_its_header_is_whole(root, tmp_path):
    path = root / "JPEGImages/b.png"
    path.write_bytes(path.read_bytes()[:500])
    (problem,) = gathered(root)
    assert problem.kind == "unreadable_picture"
    with pytest.raises(ValueError, match=r"b\.png: not readable as a picture"):
        train(root, tmp_path / "cache")


def test_all_problems_are_found_at_once(root):
    for kind in ("bad_coordinate", "box_clipped", "second_picture", "repeated_id", "shared_id"):
        CASES[kind](root)
    rewrite("</annotation>", "\n<object>\n<name>\u0085</name></object>\n</annotation>")(root)
    (root / "Annotations/c.xml").write_text("<annotation>\n\n</annotatio>")
    found = [(problem.kind, problem.line) for problem in gathered(root)]
    assert found == [
        ("bad_coordinate", 1),
        ("bad_class_name", 3),
        ("broken_annotation", 3),
        ("shared_id", 1),
        ("repeated_id", 3),
        ("box_clipped", 1),
        ("second_picture", None),
    ]


def test_same_line_twice_is_two_problems_but_two_splits_are_one(root):
    objects((41, 1, 50, 20), (41, 1, 50, 20))(root)
    line_in_list("b", "test")(root)
    kinds = [problem.kind for problem in gathered(root)]
    assert kinds == ["shared_id", "box_outside", "box_outside"]


def test_same_pixels_within_a_split_are_told(root):
    shutil.copy(root / "JPEGImages/a.png", root / "JPEGImages/b.png")
    (problem,) = gathered(root)
    assert problem.file.endswith("b.png")
    assert problem.message.endswith("a.png: it counts twice in the split train")


def test_no_object_anywhere_is_refused(write_voc):
    root = write_voc({"train": {"a": []}})
    inspection = inspect_data(str(root), ["train"])
    assert [problem.kind for problem in inspection.problems] == ["no_class"]


def test_command_prints_and_writes_everything(root, tmp_path, capsys):
    CASES["box_clipped"](root)
    CASES["repeated_id"](root)
    out = tmp_path / "out.json"
    assert run(["check", str(root), "--json", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    xml = root / "Annotations/b.xml"
    assert f"{xml}:1: 'dog' box (-4, 1, 12, 20) clipped to the 40x30 picture\n" in printed.out
    assert "train.txt:3: repeated identifier 'b' dropped, first in line 1" not in printed.out
    assert "train.txt:3: repeated identifier 'b' dropped, first in line 2\n" in printed.out
    assert "objects have no prior with an IoU of 0.5 or more" in printed.out
    content = json.loads(out.read_text())
    assert content["num_refused"] == 0
    assert content["class_names"] == ["dog"]
    assert content["splits"][0] == {
        "name": "test",
        "num_pictures": 1,
        "num_objects": 1,
        "num_difficult": 0,
        "num_empty": 0,
    }
    assert [(p["kind"], p["treatment"], p["line"]) for p in content["problems"]] == [
        ("repeated_id", "dropped", 3),
        ("box_clipped", "clipped", 1),
    ]
    assert content["problems"][1]["file"] == str(xml)
    assert content["coverage"]["by_coco_size"][-1]["num_objects"] == 4


def test_command_fails_with_what_a_training_would_refuse(root, tmp_path, capsys):
    CASES["bad_coordinate"](root)
    CASES["unreadable_picture"](root)
    out = tmp_path / "out.json"
    arguments = ["check", str(root), "--no-coverage", "--json", str(out)]
    assert run(arguments) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: a training would refuse this data set: line 1 of ")
    assert line.endswith("(and 1 more problems that are refused)")
    content = json.loads(out.read_text())
    assert content["num_refused"] == 2
    assert content["coverage"] is None
    (root / "Annotations/b.xml").write_text("<annotation/>")
    assert run(["check", str(root), "--no-coverage", "--split", "test"]) == 0


def test_command_reads_a_configuration(root, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("model: {backbone: resnet18, image_size: 64}\ndata: {val_split: test}\n")
    assert run(["check", str(root), "--config", str(config)]) == 0
    assert "of the model at 64 px" in capsys.readouterr().out
    config.write_text("data: {val_split: val}\n")
    assert run(["check", str(root), "--config", str(config), "--no-coverage"]) == 1
    assert "no split 'val'" in capsys.readouterr().err
    config.write_text("data: {val_split: test, class_names: [cat]}\n")
    assert run(["check", str(root), "--config", str(config), "--no-coverage"]) == 1
    assert "unknown class 'dog'; known are: cat" in capsys.readouterr().err


def test_command_reads_a_coco_file(tmp_path, capsys):
    path = tmp_path / "gt.json"
    boxes = [[1, 2, 3, 4], [1, 2, 0, 4], [1, 2, float("nan"), 4], [1, 2, 3, 4]]
    content = {
        "images": [{"id": 1, "width": 64, "height": 64}],
        "annotations": [{"image_id": 1, "category_id": 5, "bbox": box} for box in boxes],
        "categories": [{"id": 5, "name": "x"}, {"id": 5, "name": "y"}],
    }
    content["annotations"][3]["image_id"] = 2
    path.write_text(json.dumps(content))
    out = tmp_path / "out.json"
    assert run(["check", str(path), "--json", str(out)]) == 1
    problems = json.loads(out.read_text())["problems"]
    assert [(problem["kind"], problem["place"]) for problem in problems] == [
        ("repeated_entry", "categories[1].id"),
        ("bad_coordinate", "annotations[2].bbox"),
        ("missing_image", "annotations[3].image_id"),
        ("box_without_area", "annotations[1]"),
    ]
    assert "gt.json: annotations[1] dropped" in capsys.readouterr().out
    path.write_text("{")
    assert run(["check", str(path)]) == 1
    assert "gt.json: not readable as JSON" in capsys.readouterr().err


def test_synthetic_data_have_no_problems():
    inspection = inspect_data("synthetic", ["val"])
    assert inspection.problems == ()
    assert inspection.splits[0].num_pictures == 100


MARKUP = "[red]dog[/red] &lt;b&gt; [link=x]"


def test_markup_in_class_names_is_shown_as_it_is(write_voc, capsys):
    name = "[red]dog[/red] <b> [link=x]"
    root = write_voc({"train": {"a": [(MARKUP, 1, 1, 1, 9), (MARKUP, 1, 1, 9, 9)]}})
    assert run(["check", str(root)]) == 0
    printed = capsys.readouterr().out
    assert f"a.xml:1: '{name}' box (1, 1, 1, 9) dropped: no area" in printed
    assert f"│ {name} " in printed
    Terminal().introduce(Preparation((name,), 1, 1, (f"a.xml: {name}",)))
    assert capsys.readouterr().out.count(name) == 2


def test_names_of_files_cannot_write_to_the_terminal(write_voc, capsys):
    root = write_voc({"train": {"a\x1b[31m": [DOG], "b[bold]": [DOG]}})
    (root / "JPEGImages/a\x1b[31m.png").write_bytes(b"")
    (root / "ImageSets/Main/[red]x.txt").write_text("b[bold]\n")
    assert run(["check", str(root), "--no-coverage"]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert r"a\x1b[31m.png: not readable as a picture" in printed.err
    assert "│ [red]x" in printed.out


@pytest.mark.parametrize("arguments", [["nowhere"], ["ROOT", "--json", "ROOT"]])
def test_arguments_that_mean_nothing(root, capsys, arguments):
    assert run(["check", *(a.replace("ROOT", str(root)) for a in arguments)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
