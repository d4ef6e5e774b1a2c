"""docs/average_precision.md says what the code does: its tables are made anew and compared."""

import json
from pathlib import Path

import pytest
from voc_scenes import scene_of

from ssd_dist.evaluation.assignment import assign
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import flatten_annotations, flatten_detections
from ssd_dist.evaluation.voc_ap import evaluate_voc

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "average_precision.md").read_text(encoding="utf-8")
CASES = json.loads((ROOT / "tests" / "golden" / "voc_ap.json").read_text(encoding="utf-8"))["cases"]
EXAMPLE = next(case for case in CASES if case["name"] == "where programs disagree")


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def rules(name, options):
    difficult = "counted" if options.count_difficult else "neither way"
    if options.difficult_in_recall:
        difficult = "in the recall"
    decimals = options.score_decimals, options.box_decimals
    return row(
        f"`{name}`",
        f"{'>' if options.strict_iou else '≥'} {options.iou_threshold}",
        "x2 − x1 + 1" if options.inclusive_pixels else "x2 − x1",
        "float32" if options.single_precision else "float64",
        difficult,
        "first not difficult" if options.difficult_last else "first",
        f"`{options.recall_levels}`",
        options.mean_over,
        "–" if decimals == (None, None) else "{}, {}".format(*decimals),
    )


def example(name, options):
    scene = scene_of(EXAMPLE)
    result = evaluate_voc(*scene, EXAMPLE["classes"], options=options)
    objects, found = flatten_annotations(scene[0], 2), flatten_detections(*reversed(scene), 2)
    assignment = assign(objects, found, options=options)
    of_class_a = [i for i in assignment.order if found.labels[i] == 1]
    signs = "".join(
        "T" if assignment.true_positive[i] else "·" if assignment.ignored[i] else "F"
        for i in of_class_a
    )
    return row(
        f"`{name}`",
        signs,
        str(result.num_objects["a"]),
        f"{result.ap_11pt['a']:.4f}",
        f"{result.map_11pt:.4f}",
        f"{result.ap_area['a']:.4f}",
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("line", [rules, example])
def test_the_tables_hold(line, name):
    assert line(name, PRESETS[name]) in PAGE.splitlines()


def test_the_rank_table_holds():
    ranks = evaluate_voc(*scene_of(EXAMPLE), EXAMPLE["classes"]).ranks["a"]
    for rank in ranks:
        confidence = "never reached" if rank.confidence is None else f"{rank.confidence:.4f}"
        assert row(f"{rank.recall:.1f}", confidence, f"{rank.precision:.4f}") in PAGE.splitlines()


def test_every_rule_is_named():
    assert all(f"`{name}`" in PAGE for name in ApOptions.__slots__)
