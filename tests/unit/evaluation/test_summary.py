"""What the parts of a summary must agree about."""

import numpy as np
import pytest

from ssd_dist.evaluation.options import PRESETS
from ssd_dist.evaluation.summary import summarize
from ssd_dist.structures import Annotation, Detections


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_best_threshold_keeps_is_kept_everywhere(preset):
    """py-faster-rcnn and detectron2 round 0.9996 to 1.000, and so their best threshold."""
    box_xyxy = np.array([[2, 3, 12, 13]], np.float32)
    label = np.array([1], np.int64)
    summary = summarize(
        [Annotation("a", 40, 30, box_xyxy, label, np.zeros(1, bool))],
        [Detections("a", box_xyxy, label, np.array([0.9996], np.float32))],
        ["cat"],
        options=PRESETS[preset],
        with_coco=False,
        num_resamples=0,
    )
    assert summary.best_f1["cat"].f1 == 1
    assert summary.confusion.tolist() == [[0, 0], [0, 1]]
    assert summary.errors[0]["correct"] == 1
    assert summary.errors[0]["missed"] == 0
