"""`python -m ssd_dist.evaluation`: the whole way from files to numbers, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_dist.evaluation.__main__ import main, parse, run
from ssd_dist.evaluation.options import PRESETS, ApOptions

# Two dogs and a cat in three pictures. Of the dogs both are found, with a mistake in between; the
# cat is not. `bird` occurs in another split only.
OBJECTS = {
    "p1": [("dog", 10, 10, 50, 50), ("cat", 60, 60, 90, 90)],
    "p2": [("dog", 20, 20, 60, 60)],
    "p3": [],
}
CATEGORY_IDS = {"bird": 2, "cat": 5, "dog": 90}
IMAGE_IDS = {"p1": 33, "p2": 11, "p3": 22}
FOUND = [
    ("p1", "dog", (10, 10, 50, 50), 0.9),
    ("p3", "dog", (0, 0, 30, 30), 0.8),
    ("p2", "dog", (20, 20, 60, 60), 0.7),
]


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def voc_xml(objects: list[tuple]) -> str:
    return (
        "<annotation>"
        + "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for name, x1, y1, x2, y2 in objects
        )
        + "</annotation>"
    )


@pytest.fixture
def voc(tmp_path):
    """A VOC root without pictures."""
    root = tmp_path / "voc"
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    other = {"q1": [("bird", 1, 1, 9, 9)]}
    for split, pictures in (("test", OBJECTS), ("train", other)):
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(pictures))
        for image_id, objects in pictures.items():
            (root / "Annotations" / f"{image_id}.xml").write_text(voc_xml(objects))
    return root


@pytest.fixture
def coco(tmp_path):
    """The same as a COCO file."""
    annotations = [
        {
            "image_id": IMAGE_IDS[image_id],
            "category_id": CATEGORY_IDS[name],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for image_id, objects in OBJECTS.items()
        for name, x1, y1, x2, y2 in objects
    ]
    return write_json(
        tmp_path / "gt.json",
        {
            "images": [{"id": i} for i in IMAGE_IDS.values()],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for name, i in CATEGORY_IDS.items()],
        },
    )


def rows(*, image_ids: dict[str, int] | None = None, **class_numbers: int) -> list[dict[str, Any]]:
    """`FOUND` as rows; classes by number where there are some, by name otherwise."""
    return [
        {
            "image_id": image_ids[image_id] if image_ids else image_id,
            **({"category_id": class_numbers[name]} if class_numbers else {"category": name}),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, name, (x1, y1, x2, y2), score in FOUND
    ]


@pytest.fixture
def found_voc(tmp_path):
    return write_json(tmp_path / "dets.json", rows())


@pytest.fixture
def found_coco(tmp_path):
    return write_json(tmp_path / "coco_dets.json", rows(image_ids=IMAGE_IDS, **CATEGORY_IDS))


def evaluate(truth: Path, found: Path, *flags: str) -> dict[str, Any]:
    out = found.with_name("out.json")
    argv = ["--ground-truth", str(truth), "--detections", str(found), "--json", str(out), *flags]
    main(parse(argv))
    return json.loads(out.read_text())


def as_command(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ssd_dist.evaluation", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_values(result: dict[str, Any]) -> None:
    """The values of `FOUND`, worked by hand."""
    dog = (6 * 1 + 5 * 2 / 3) / 11
    assert result["ap_11pt"] == pytest.approx({"bird": None, "cat": 0, "dog": dog}, abs=1e-12)
    assert result["map_11pt"] == pytest.approx(dog / 2, abs=1e-12)
    assert result["ap_area"] == pytest.approx({"bird": None, "cat": 0, "dog": 5 / 6}, abs=1e-12)
    assert result["map_area"] == pytest.approx(5 / 12, abs=1e-12)
    assert result["ranks"]["dog"] == [
        *([i / 10, 0.9, 1.0] for i in range(6)),
        *([i / 10, 0.7, 2 / 3] for i in range(6, 11)),
    ]
    never = [[i / 10, None, 0.0] for i in range(11)]
    assert result["ranks"]["cat"] == result["ranks"]["bird"] == never
    assert result["best_f1"] == {
        "bird": None,
        "cat": None,
        "dog": pytest.approx({"threshold": 0.7, "precision": 2 / 3, "recall": 1, "f1": 0.8}),
    }
    assert result["confusion"] == {
        "class_names": ["background", "bird", "cat", "dog"],
        "matrix": [[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2]],
        "score_thresholds": {"bird": 0.5, "cat": 0.5, "dog": 0.7},
    }
    errors = {"correct": 2, "background": 1, "missed": 1}
    zeros = dict.fromkeys(("class", "box", "both", "duplicate"), 0)
    assert result["errors"]["all"] == errors | zeros
    assert result["errors"]["by_class"]["cat"]["missed"] == 1
    assert result["errors"]["map_lost"]["background"] == pytest.approx((1 - dog) / 2, abs=1e-12)
    assert result["num_images"] == 3
    assert result["num_objects"] == {"bird": 0, "cat": 1, "dog": 2}
    low, high = result["map_11pt_interval"]
    assert 0 <= low < result["map_11pt"] < high <= 1


def test_voc_as_a_command(voc, found_voc, tmp_path):
    out = tmp_path / "folder" / "out.json"
    done = as_command("--ground-truth", voc, "--detections", found_voc, "--json", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    result = json.loads(out.read_text())
    check_values(result)
    assert result["options"] == {"preset": "exact", **dataclasses.asdict(ApOptions())}
    assert [path.name for path in out.parent.iterdir()] == ["out.json"]  # nothing left beside it


def test_coco_as_a_command(coco, found_coco):
    done = as_command("--ground-truth", coco, "--detections", found_coco)
    assert (done.returncode, done.stderr) == (0, "")
    assert "11-point mAP 0.4242, 95 % interval " in done.stdout
    for text in ("AP_small", "never", "no objects", "never right", "background", "mAP lost"):
        assert text in done.stdout


def test_error_as_a_command(voc, tmp_path):
    row = {"image_id": "p1", "category": "dog", "bbox": [0, 0, 1, 1], "score": float("nan")}
    found = write_json(tmp_path / "dets.json", [row])
    done = as_command("--ground-truth", voc, "--detections", found)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line == f"error: {found}: [0].score is NaN; a score must be finite"


def test_voc_and_coco_give_the_same(voc, coco, found_voc, found_coco, tmp_path):
    by_name = evaluate(voc, found_voc)
    check_values(by_name)
    by_number = write_json(tmp_path / "numbers.json", rows(bird=1, cat=2, dog=3))
    assert evaluate(voc, by_number) == by_name
    assert evaluate(coco, found_coco) == by_name


def test_nothing_detected(voc, tmp_path, capsys):
    found = write_json(tmp_path / "dets.json", [])
    result = evaluate(voc, found)
    assert result["map_11pt"] == result["map_area"] == result["coco"]["AP"] == 0
    assert result["ap_11pt"] == {"bird": None, "cat": 0, "dog": 0}
    assert result["errors"]["all"]["missed"] == 3
    assert result["map_11pt_interval"] == [0, 0]
    main(parse(["--ground-truth", str(voc), "--detections", str(found)]))
    assert "11-point mAP 0.0000" in capsys.readouterr().out


def test_coco_numbers_are_those_of_the_files(tmp_path):
    """pycocotools reads the same two files by itself."""
    rng = np.random.default_rng(3)
    annotations, found = [], []
    for image_id in range(10, 50):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(5, 150, 2)]
            category_id = int(rng.choice([1, 7, 9]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 3)):
                jittered = [*(box[:2] + rng.normal(0, 8, 2)), *(box[2:] * rng.uniform(0.8, 1.2, 2))]
                found.append(
                    {
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": jittered,
                        "score": float(rng.random()),
                    }
                )
    truth_path = write_json(
        tmp_path / "gt.json",
        {
            "images": [{"id": i} for i in range(10, 50)],
            "annotations": annotations,
            "categories": [{"id": i, "name": f"class {i}"} for i in (9, 1, 7)],
        },
    )
    found_path = write_json(tmp_path / "dets.json", found)
    ours = evaluate(truth_path, found_path)["coco"]

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(truth_path))
        evaluation = COCOeval(theirs, theirs.loadRes(str(found_path)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(list(ours.values()), evaluation.stats, rtol=0, atol=1e-12)
    assert 0.1 < ours["AP"] < 0.9


def test_a_preset_and_rules_of_ones_own(voc, found_voc, tmp_path):
    for name, rules in PRESETS.items():
        arguments = parse(["--ground-truth", "x", "--detections", "y", "--preset", name])
        assert (arguments.preset, arguments.rules) == (name, rules)
    flags = ["--preset", "detectron2", "--no-strict-iou", "--iou-threshold", "0.8"]
    arguments = parse(
        ["--ground-truth", "x", "--detections", "y", *flags, "--score-decimals", "None"]
    )
    changes = {"strict_iou": False, "iou_threshold": 0.8, "score_decimals": None}
    assert arguments.rules == dataclasses.replace(PRESETS["detectron2"], **changes)
    options = evaluate(voc, found_voc, *flags)["options"]
    assert options.pop("preset") == "detectron2"
    assert options == dataclasses.asdict(arguments.rules) | {"score_decimals": 3}


def test_rules_take_effect(voc, tmp_path):
    # 40 x 40 in 40 x 50: IoU 0.8 exactly.
    row = {"image_id": "p2", "category": "dog", "bbox": [20, 20, 40, 50], "score": 0.5}
    found = write_json(tmp_path / "dets.json", [row])
    for flags, expected in (
        ([], 6 / 11),
        (["--iou-threshold", "0.8"], 6 / 11),
        (["--iou-threshold", "0.8", "--strict-iou"], 0),
        (["--iou-threshold", "0.05"], 6 / 11),
    ):
        assert evaluate(voc, found, *flags)["ap_11pt"]["dog"] == pytest.approx(expected)


def test_parts_that_can_be_left_out(voc, found_voc, capsys):
    result = evaluate(voc, found_voc, "--no-coco", "--num-resamples", "0")
    assert result["coco"] is None
    assert result["map_11pt_interval"] is None
    argv = ["--ground-truth", str(voc), "--detections", str(found_voc), "--num-resamples", "0"]
    main(parse([*argv, "--no-coco", "--iou-threshold", "0.6"]))
    printed = capsys.readouterr().out
    assert "AP_small" not in printed
    assert "interval" not in printed
    assert "rules: exact iou_threshold=0.6" in printed


def test_a_split_means_nothing_for_coco(coco, found_coco, capsys):
    evaluate(coco, found_coco, "--split", "val")
    note = capsys.readouterr().err
    assert note == "note: --split val means nothing for a COCO file: all was read\n"


def test_dropped_boxes_are_told(voc, found_voc, capsys):
    (voc / "Annotations/p3.xml").write_text(voc_xml([("dog", 5, 5, 5, 9)] * 13))
    check_values(evaluate(voc, found_voc))
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 11
    assert notes[0].endswith("p3.xml: 'dog' box (5, 5, 5, 9) dropped: no area")
    assert notes[-1] == "note: … and 3 more like these"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda voc, found: found.write_text(""), r"dets\.json: the file is empty"),
        (lambda voc, found: found.unlink(), r"dets\.json does not exist"),
        (
            lambda voc, found: found.write_text(found.read_text().replace('"p3"', '"p4"')),
            r"dets\.json: \[1\]\.image_id is 'p4', which is not among the 3 pictures of .*voc, "
            "split 'test'",
        ),
        (
            lambda voc, found: found.write_text(found.read_text().replace("dog", "cow")),
            r"dets\.json: \[0\]\.category is 'cow', .* its classes are 1 bird, 2 cat, 3 dog",
        ),
        (
            lambda voc, found: [
                (voc / f"Annotations/{image_id}.xml").write_text(voc_xml([]))
                for image_id in OBJECTS
            ],
            r"voc, split 'test': no object to be found",
        ),
        (
            lambda voc, found: (voc / "ImageSets/Main/test.txt").unlink(),
            r"no split 'test' in .*Main; there are: train",
        ),
        (
            lambda voc, found: (voc / "Annotations/p2.xml").unlink(),
            r"no annotation .*p2\.xml",
        ),
        (
            lambda voc, found: voc.rename(voc.with_name("elsewhere")),
            r"ground truth .*voc does not exist",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(voc, found_voc, capsys, change, message):
    change(voc, found_voc)
    assert run(["--ground-truth", str(voc), "--detections", str(found_voc)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.search(f"^error: .*{message}", line), line


def test_flags_that_can_not_be(voc, found_voc, capsys):
    argv = ["--ground-truth", str(voc), "--detections", str(found_voc)]
    assert run([*argv, "--num-resamples", "-1"]) == 1
    assert capsys.readouterr().err == "error: --num-resamples must be 0 or more, not -1\n"
    assert run([*argv, "--json", str(voc)]) == 1
    assert capsys.readouterr().err == f"error: --json {voc} is a folder; give a file\n"


def test_help_does_not_load_torch():
    code = (
        "import sys; from ssd_dist.evaluation.__main__ import parse\n"
        "try: parse(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--ground-truth" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
