import numpy as np
import pytest

from ssd_dist.analysis.complexity import Complexity, Segment
from ssd_dist.analysis.device_table import DeviceRow, DeviceTable
from ssd_dist.analysis.importance import Learned
from ssd_dist.analysis.layers import Cost, Layer
from ssd_dist.analysis.memory import Memory
from ssd_dist.analysis.noise import Noise
from ssd_dist.analysis.postprocessing_cost import PostprocessingCost
from ssd_dist.analysis.timing import Percentiles
from ssd_dist.analysis.timing_report import PeakMemory, ProfilerCost, TimingReport
from ssd_dist.analysis.training_cost import TrainingCost
from ssd_dist.config import Config, to_mapping
from ssd_dist.evaluation.summary import summarize
from ssd_dist.experiment import TrialRecord
from ssd_dist.repeated import Repeated
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


def make_complexity():
    """A stem and a head; 3 million multiply-accumulates and 4,000 parameters in all."""
    stem = Layer(
        name="backbone.features.<stem>",
        kind="convolution",
        in_channels=3,
        out_channels=8,
        kernel=(3, 3),
        stride=(2, 2),
        output_hw=(16, 16),
        params=3_000,
        macs=2_000_000,
        activations=2_048,
        bytes_read=5_000,
        bytes_written=8_192,
    )
    head = Layer(
        name="head.classification_head",
        kind="convolution",
        in_channels=8,
        out_channels=12,
        kernel=(3, 3),
        output_hw=(16, 16),
        params=1_000,
        macs=1_000_000,
        activations=3_072,
        bytes_read=9_000,
        bytes_written=12_288,
    )
    nothing = Cost(0, 0, 0, 0)
    some = Cost(3_000_000, 40, 14_000, 20_480)
    return Complexity(
        image_size=32,
        layers=(stem, head),
        segments={
            "preprocessing": Segment(0, 0, nothing),
            "backbone": Segment(3_000, 2_048, Cost(2_000_000, 0, 5_000, 8_192)),
            "extras": Segment(0, 0, nothing),
            "heads": Segment(1_000, 3_072, Cost(1_000_000, 0, 9_000, 12_288)),
            "postprocessing": Segment(0, 0, nothing),
        },
        postprocessing=PostprocessingCost(256, 20, 190, nothing, nothing, nothing, nothing),
        training=TrainingCost(
            batch_size=4,
            optimizer="sgd",
            forward=some,
            loss=nothing,
            backward=some,
            input_gradient_macs=1_000_000,
            weight_gradient_macs=2_000_000,
            update=nothing,
            memory=Memory(16_000, 16_000, 16_000, 0, 80_000, 12_000, peak=130_000),
        ),
        total_params=4_000,
    )


def make_timing():
    """A step of 100 ms and a picture in 4 ms, on a CPU; nothing on the GPU that is not there."""

    def around(**medians):
        medians["total"] = sum(medians.values())
        return {name: Percentiles(ms, 0.9 * ms, 1.5 * ms) for name, ms in medians.items()}

    return TimingReport(
        device="cpu",
        num_threads=1,
        precision="fp32",
        data="made-up, test",
        batch_size=4,
        num_steps=9,
        num_warmup=1,
        train_step_ms=around(data=10.0, backbone=30.0, communication=0.0, backward=60.0),
        inference_ms=around(backbone=3.0, postprocessing=1.0),
        num_inferences=12,
        by_kind_percent={"convolution": 93.0, "batch_norm": 4.0, "softmax_and_regression": 3.0},
        profiler=ProfilerCost(100.0, 110.0, 100.0, 3),
        memory=PeakMemory(150_000, 130_000, "looked at"),
        devices=DeviceTable(
            4,
            (
                DeviceRow(
                    device="1 CPU thread",
                    kind="threads",
                    count=1,
                    precision="fp32",
                    step_ms=Percentiles(100.0, 90.0, 150.0),
                    num_steps=4,
                    images_per_second=40.0,
                    speed_up=1.0,
                ),
                DeviceRow(device="GPU", kind="gpu", count=1, precision="fp32", note="not here"),
            ),
        ),
        noise=Noise(False, "The machine was quiet.", {}, 2.0),
        trace="trace.json",
    )


def make_learned():
    return Learned(
        num_trials=3,
        importance={"lr": 0.7, "alpha": 0.1, "l2_lambda": 0.05},
        interactions=[("alpha", "lr", 0.12), ("l2_lambda", "lr", 0.03)],
        r2_unseen=None,
        sentences=("Much came from the rate.", "Little came from the rest."),
    )


def make_repeats(found=(0.74, 0.75, 0.76), paper=(0.60, 0.62, 0.64), **changes):
    """The search's best trial, which diverged once where its value is None, and the SSD paper's
    defaults; `found_on_split` and `paper_on_split` are their values on the report's split."""

    def one(trial, values, split_values, parameters):
        runs = tuple(
            make_trial(
                2 * seed,
                value,
                state="complete" if value is not None else "diverged",
                parameters={**parameters, "seed": seed},
            )
            for seed, value in enumerate(values, start=1)
        )
        return Repeated(
            parameters=parameters,
            trial=trial,
            is_paper=trial is None,
            runs=runs,
            split_values=split_values,
        )

    both = [
        one(2, found, changes.get("found_on_split"), {"alpha": 3.0, "l2_lambda": 0.01, "lr": 0.01}),
        one(
            None,
            paper,
            changes.get("paper_on_split"),
            {"alpha": 1.0, "l2_lambda": 2.5e-4, "lr": 5e-4},
        ),
    ]
    return sorted(both, key=lambda repeated: -repeated.mean)


def make_content(**changes):
    """Three pictures: all right; one of two cats missed and a dog too many; nothing there.

    `class_names` among the changes are those of the summary, which is made of what is given."""
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
        "annotations": annotations,
        "detections": detections,
        "summary": None,
        "read_image": lambda index: np.full((30, 40, 3), 80 * index, np.uint8),
        "complexity": make_complexity().to_json(),
        "timing": make_timing().to_json(),
        "provenance": {"git_commit": None, "libraries": {"torch": "2.0"}, "machine": {"cores": 2}},
        "validation_map_11pt": 0.75,
        "num_seen": 0,
        "leaderboard": [
            make_trial(0, 0.4),
            make_trial(1, None, state="failed", epochs=0, error="out of memory"),
            make_trial(2, 0.75),
            make_trial(3, 0.1, state="pruned"),
        ],
        "learned": make_learned(),
        "training_curve": [
            {"epoch": 1, "loss": 5.0, "loss_conf": 3.0, "loss_loc": 2.0, "lr": 0.01, "map_11pt": 0},
            {"epoch": 2, "loss": float("nan"), "lr": 0.005, "map_11pt": 0.75},
        ],
    }
    class_names = changes.pop("class_names", CLASS_NAMES)
    fields |= changes
    if fields["summary"] is None:
        fields["summary"] = summarize(
            fields["annotations"], fields["detections"], class_names, num_resamples=20
        )
    return ReportContent(**fields)


def make_brief(**changes):
    """The same without search and training, whose plots take their time."""
    return make_content(**({"leaderboard": None, "learned": None, "training_curve": ()} | changes))


@pytest.fixture(scope="session")
def content():
    return make_content()


@pytest.fixture(scope="session")
def content_with():
    return make_content


@pytest.fixture(scope="session")
def repeats_of():
    return make_repeats


@pytest.fixture(scope="session")
def brief_with():
    return make_brief


@pytest.fixture(scope="session")
def trial():
    return make_trial


@pytest.fixture(scope="session")
def annotation():
    return make_annotation


@pytest.fixture(scope="session")
def detected():
    return make_detections
