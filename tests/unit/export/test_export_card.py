"""The card says what is known, and that the rest is not stated."""

import json

import pytest

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import ModelConfig
from ssd_dist.export.card import check_report, matching_report
from ssd_dist.export.licences import NOT_STATED, licence_of_data, licence_of_weights


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "the training started from random weights"),
        ({"weights": "runs/one/weights.pth"}, f"weights.pth: {NOT_STATED}"),
        ({"weights": "coco", "architecture": "ssd300_vgg16"}, f"coco weights: {NOT_STATED}"),
        ({"weights": "imagenet", "backbone": "resnet18"}, "timm states"),
    ],
)
def test_licence_of_the_first_weights(fields, message):
    assert message in licence_of_weights(ModelConfig(**fields))


def test_licence_of_the_data_is_quoted_or_not_stated(tmp_path):
    assert licence_of_data(str(tmp_path)) == NOT_STATED
    assert licence_of_data(str(tmp_path / "gone")) == NOT_STATED
    (tmp_path / "LICENSE.txt").write_text("\n  MIT License\n\nCopyright\n")
    assert licence_of_data(str(tmp_path)) == "the data set's LICENSE.txt begins “MIT License”"


def test_only_this_checkpoints_report_counts(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    path = tmp_path / "report.json"
    assert matching_report(path, checkpoint) is None
    report = {"validation_map_11pt": 0.5, "class_names": list(checkpoint.class_names)}
    path.write_text(json.dumps(report))
    assert matching_report(path, checkpoint) == report
    path.write_text(json.dumps({**report, "validation_map_11pt": 0.51}))
    assert matching_report(path, checkpoint) is None


def test_a_report_that_somebody_names_is_there_and_of_this_checkpoint(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    path = tmp_path / "report.json"
    with pytest.raises(FileNotFoundError, match=r"there is no file \S*report\.json"):
        check_report(path, checkpoint)
    path.write_text(json.dumps({"validation_map_11pt": 0.51, "class_names": []}))
    with pytest.raises(ValueError, match=r"report\.json is not the report\.json of an evaluation"):
        check_report(path, checkpoint)
    report = {"validation_map_11pt": 0.5, "class_names": list(checkpoint.class_names)}
    path.write_text(json.dumps(report))
    check_report(path, checkpoint)
