import numpy as np
import pytest

from ssd_dist.config import Config, to_mapping
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.experiment import TrialRecord
from ssd_dist.report import ReportContent
from ssd_dist.structures import Annotation, Detections

CLASS_NAMES = ("cat <b>&</b> co", "<script>alert('dog')</script>", "nowhere")


def make_annotation(image_id, boxes_xyxy=(), labels=(), difficult=None):
    labels = np.array(labels, dtype=np.int64)
    return Annotation(
        image_id=image_id,
        width=40,
        height=30,
        boxes_xyxy=np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4),
        labels=labels,
        difficult=np.zeros(len(labels), bool) if difficult is None else np.array(difficult),
    )


def make_detections(image_id, boxes_xyxy=(), labels=(), scores=()):
    return Detections(
        image_id=image_id,
        boxes_xyxy=np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        scores=np.array(scores, dtype=np.float32),
    )


def make_trial(number, map_11pt, **changes):
    fields = {
        "number": number,
        "state": "complete",
        "parameters": {"alpha": 1.0 + number, "l2_lambda": 10.0**-number, "lr": 0.01},
        "map_11pt": map_11pt,
        "epochs": 2,
        "seconds": 60.0,
        "curve": () if map_11pt is None else (map_11pt / 2, map_11pt),
        "checkpoint": None,
    }
    return TrialRecord(**(fields | changes))


def make_content(**changes):
    """Three pictures: all right; one of two cats missed and a dog too many; nothing there."""
    annotations = [
        make_annotation("right", [[0, 0, 10, 10], [20, 0, 30, 10]], [1, 2]),
        make_annotation(
            "wrong",
            [[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 9, 29]],
            [1, 1, 2],
            [False, False, True],
        ),
        make_annotation("empty"),
    ]
    detections = [
        make_detections("right", [[0, 0, 10, 10], [20, 0, 30, 10]], [1, 2], [0.9, 0.8]),
        make_detections(
            "wrong",
            [[0, 0, 10, 9], [20, 10, 35, 25], [0, 20, 9, 28]],
            [1, 2, 2],
            [0.7, 0.85, 0.95],
        ),
        make_detections("empty", [[0, 0, 5, 5]], [1], [0.1]),
    ]
    fields = {
        "model_name": "ssd",
        "config": to_mapping(Config()),
        "hyperparameters": {"alpha": 1.5, "l2_lambda": 2.5e-4, "lr": 0.01},
        "checkpoint": "runs/one/best_checkpoint",
        "data_name": "made-up",
        "data_fingerprint": "0123456789abcdef",
        "split": "test",
        "class_names": CLASS_NAMES,
        "annotations": annotations,
        "detections": detections,
        "result": evaluate_voc(annotations, detections, CLASS_NAMES),
        "read_image": lambda index: np.full((30, 40, 3), 80 * index, np.uint8),
        "complexity": {
            "total_macs": 3_000_000,
            "total_params": 4_000,
            "layers": [
                {
                    "name": "backbone.stem",
                    "kind": "conv",
                    "in_channels": 3,
                    "out_channels": 8,
                    "kernel": (3, 3),
                    "stride": (2, 2),
                    "groups": 1,
                    "output_hw": (16, 16),
                    "params": 224,
                    "macs": 55_296,
                }
            ],
            "segments": {
                "backbone": {"macs": 2_000_000, "params": 3_000},
                "heads": {"macs": 1_000_000, "params": 1_000},
            },
        },
        "timing": {
            "ms_per_image": {"median": 4.0, "p10": 3.5, "p90": 6.0},
            "device": "cpu",
            "num_threads": 1,
        },
        "provenance": {"git_commit": None, "libraries": {"torch": "2.0"}, "machine": {"cores": 2}},
        "validation_map_11pt": 0.75,
        "leaderboard": [
            make_trial(0, 0.4),
            make_trial(1, None, state="failed", epochs=0, error="out of memory"),
            make_trial(2, 0.75),
            make_trial(3, 0.1, state="pruned"),
        ],
        "training_curve": [
            {"epoch": 1, "loss": 5.0, "loss_conf": 3.0, "loss_loc": 2.0, "lr": 0.01, "map_11pt": 0},
            {"epoch": 2, "loss": float("nan"), "lr": 0.005, "map_11pt": 0.75},
        ],
    }
    return ReportContent(**(fields | changes))


@pytest.fixture
def content():
    return make_content()


@pytest.fixture
def content_with():
    return make_content


@pytest.fixture
def trial():
    return make_trial


@pytest.fixture
def annotation():
    return make_annotation


@pytest.fixture
def detected():
    return make_detections
