"""Suppression with fixed shapes keeps what `detect` keeps."""

from dataclasses import replace

import pytest
import torch

from ssd_dist.export.graph import ExportedDetector
from ssd_dist.export.suppression import survivors
from ssd_dist.ops.postprocess import detect

BOXES = torch.tensor(
    [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.4], [0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]
)


def test_only_a_better_box_of_the_same_class_and_image_suppresses():
    boxes = BOXES.expand(2, 4, 4)
    labels = torch.tensor([[1, 1, 2, 1], [1, 2, 1, 1]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, -1.0]])
    kept = survivors(boxes, scores, labels, 2, 0.45)
    # In the first image the second box (IoU 0.8) goes; in the second the third (IoU 1), and the
    # fourth has no score.
    assert kept.tolist() == [[True, False, True, True], [True, True, False, False]]


def test_a_box_without_a_score_suppresses_nothing():
    kept = survivors(BOXES[None, :2], torch.tensor([[-1.0, 0.5]]), torch.ones(1, 2).long(), 1, 0.45)
    assert kept.tolist() == [[False, True]]


@pytest.mark.parametrize(("candidates_of", "max_candidates"), [("image", 60), ("class", 7)])
def test_the_module_finds_what_detect_finds(tiny, candidates_of, max_candidates):
    model, config = tiny
    options = {
        "score_threshold": config.postprocess.score_threshold,
        "nms_iou_threshold": config.postprocess.nms_iou_threshold,
        "max_detections": config.postprocess.max_detections,
        "candidates_of": candidates_of,
        "max_candidates": max_candidates,
    }
    postprocess = replace(config.postprocess, **options)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes, scores, labels, counts = ExportedDetector(model, postprocess, (64, 64))(pictures)
    with torch.no_grad():
        expected = detect(*model(pictures), model.priors_cxcywh, **options)
    for i, (boxes_xyxy, wanted, wanted_scores) in enumerate(expected):
        n = int(counts[i])
        assert n == len(wanted) > 5
        torch.testing.assert_close(boxes[i, :n], 64 * boxes_xyxy)
        torch.testing.assert_close(scores[i, :n], wanted_scores)
        assert torch.equal(labels[i, :n], wanted)
        assert not boxes[i, n:].any()
        assert not scores[i, n:].any()
        assert not labels[i, n:].any()
