"""11-point AP of all classes at the size of VOC2007's test split, beside other programs.

python benchmarks/evaluation.py            the whole, some minutes, nearly all of them the others'
python benchmarks/evaluation.py --quick    a tenth of the pictures

Every contender runs by itself in a fresh process on one thread, on the same drawn input: 4,952
pictures, 20 classes, 12,032 objects, 200 detections a picture. Loading, which turns that input into
the contender's own structures and indexes, is timed apart. The others are at their best settings:
IoU 0.5 alone, one range of areas, 11 recall levels, all detections, no summary by class. They match
by COCO's rules, by which their mAP differs a little. torchmetrics does more and is not comparable:
its compute() first turns all it was given into COCO's dictionaries, which the others do in loading,
then goes through four ranges of areas and three numbers of detections and sums up. Seconds
are of the processor, all threads together: on an idle machine those of the clock, and on a busy one
still comparable.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from ssd_dist.evaluation.tables import DetectionTable, ObjectTable
from ssd_dist.evaluation.voc_ap import evaluate_tables, evaluate_voc
from ssd_dist.structures import Annotation, Detections

NUM_PICTURES, NUM_OBJECTS, NUM_CLASSES, DETECTIONS_A_PICTURE = 4952, 12032, 20, 200
WIDTH, HEIGHT = 500, 375
CLASS_NAMES = tuple(f"class {i}" for i in range(1, NUM_CLASSES + 1))
IOU_THRESHOLD = 0.5
LEVELS = np.arange(11) / 10
REPEATS = 3
"""Of which the fastest counts: the one that other work on the machine has disturbed least."""
T = TypeVar("T")
Compute = Callable[[], float]
"""What is timed; gives the mAP."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn split."""

    num_pictures: int
    objects: ObjectTable
    detections: DetectionTable


def draw(num_pictures: int, seed: int = 0) -> Scene:
    """A quarter of the detections lie near an object, most of these of its class; class i occurs in
    proportion to 1/i, as a few do most of the time."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, NUM_CLASSES + 1)
    frequency /= frequency.sum()

    def labels(n: int) -> np.ndarray:
        return rng.choice(NUM_CLASSES, n, p=frequency) + 1

    def boxes(n: int) -> np.ndarray:
        corner = rng.random((n, 2)) * [0.8 * WIDTH, 0.8 * HEIGHT]
        far_corner = np.minimum(corner + 20 + rng.random((n, 2)) * 0.5 * WIDTH, [WIDTH, HEIGHT])
        return np.concatenate([corner, far_corner], axis=1)

    num_objects = num_pictures * NUM_OBJECTS // NUM_PICTURES
    anywhere = rng.integers(0, num_pictures, num_objects - num_pictures)
    images = np.sort(np.concatenate([np.arange(num_pictures), anywhere]))
    objects = ObjectTable(
        images=images,
        boxes_xyxy=np.round(boxes(num_objects)).astype(np.float32),
        labels=labels(num_objects),
        difficult=np.zeros(num_objects, dtype=bool),  # COCO's rules for them are others
    )
    starts = np.searchsorted(images, np.arange(num_pictures + 1))
    parts = []
    for first in range(
        0, num_pictures, 1000
    ):  # in parts, to measure the memory of others than this
        pictures = np.arange(first, min(first + 1000, num_pictures))
        image = np.repeat(pictures, DETECTIONS_A_PICTURE)
        n = len(image)
        near = starts[image] + rng.integers(0, 1 << 30, n) % (starts[image + 1] - starts[image])
        is_near = rng.random(n) < 0.25
        moved = objects.boxes_xyxy[near] + rng.normal(0, 8, (n, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        of_class = is_near & (rng.random(n) < 0.7)
        parts.append(
            (
                image,
                np.where(is_near[:, None], moved, boxes(n)).astype(np.float32),
                np.where(of_class, objects.labels[near], labels(n)),
                (rng.random(n) ** np.where(is_near, 1, 3)).astype(np.float32),
            )
        )
    return Scene(
        num_pictures, objects, DetectionTable(*map(np.concatenate, zip(*parts, strict=True)))
    )


def as_pictures(scene: Scene) -> tuple[list[Annotation], list[Detections]]:
    """The same, a picture at a time, as readers and detectors give it."""
    own = np.searchsorted(scene.objects.images, np.arange(scene.num_pictures + 1))
    found = np.searchsorted(scene.detections.images, np.arange(scene.num_pictures + 1))
    annotations, detections = [], []
    for i in range(scene.num_pictures):
        part, name = slice(own[i], own[i + 1]), f"{i:06}"
        o, d = scene.objects, scene.detections
        annotations.append(
            Annotation(name, WIDTH, HEIGHT, o.boxes_xyxy[part], o.labels[part], o.difficult[part])
        )
        part = slice(found[i], found[i + 1])
        detections.append(Detections(name, d.boxes_xyxy[part], d.labels[part], d.scores[part]))
    return annotations, detections


def xywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1, dtype=np.float64
    )


def coco_ground_truth(scene: Scene) -> dict[str, list[dict[str, object]]]:
    boxes_xywh = xywh(scene.objects.boxes_xyxy).tolist()
    rows = zip(scene.objects.images, scene.objects.labels, boxes_xywh, strict=True)
    return {
        "images": [
            {"id": i + 1, "width": WIDTH, "height": HEIGHT} for i in range(scene.num_pictures)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)],
        "annotations": [
            {
                "id": i,
                "image_id": int(image) + 1,
                "category_id": int(label),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, (image, label, box) in enumerate(rows, start=1)
        ],
    }


def coco_detections(scene: Scene) -> np.ndarray:
    """(K, 7): the array that all COCO programs take, the fastest way into them."""
    d = scene.detections
    return np.column_stack([d.images + 1, xywh(d.boxes_xyxy), d.scores, d.labels])


def one_threshold(params: object) -> None:
    params.iouThrs = np.array([IOU_THRESHOLD])  # type: ignore[attr-defined]
    params.recThrs = LEVELS  # type: ignore[attr-defined]
    params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]  # type: ignore[attr-defined]
    params.maxDets = [DETECTIONS_A_PICTURE]  # type: ignore[attr-defined]


def ours(scene: Scene) -> Compute:
    return lambda: evaluate_tables(scene.objects, scene.detections, CLASS_NAMES).map_11pt


def ours_with_checks(scene: Scene) -> Compute:
    annotations, detections = as_pictures(scene)
    return lambda: evaluate_voc(annotations, detections, CLASS_NAMES).map_11pt


def with_pycocotools(scene: Scene) -> Compute:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = coco_ground_truth(scene)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(coco_detections(scene)), "bbox")
    one_threshold(evaluation.params)

    def compute() -> float:
        evaluation.evaluate()
        evaluation.accumulate()
        return float(evaluation.eval["precision"].mean())

    return compute


def with_faster_coco_eval(scene: Scene) -> Compute:
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(coco_ground_truth(scene))
    found = truth.loadRes(coco_detections(scene))
    evaluation = COCOeval_faster(truth, found, "bbox", print_function=lambda *_: None)
    one_threshold(evaluation.params)

    def compute() -> float:
        evaluation.evaluate()
        evaluation.accumulate()
        return float(evaluation.eval["precision"].mean())

    return compute


def with_hotcoco(scene: Scene) -> Compute:
    from hotcoco import COCO, COCOeval

    truth = COCO(coco_ground_truth(scene))
    evaluation = COCOeval(truth, truth.loadRes(coco_detections(scene)), "bbox")
    one_threshold(evaluation.params)

    def compute() -> float:
        evaluation.evaluate()
        evaluation.accumulate()
        assert evaluation.eval is not None
        return float(np.mean(evaluation.eval["precision"]))

    return compute


def with_torchmetrics(scene: Scene) -> Compute:
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        iou_thresholds=[IOU_THRESHOLD],
        rec_thresholds=LEVELS.tolist(),
        max_detection_thresholds=[1, 10, DETECTIONS_A_PICTURE],
        backend="faster_coco_eval",
        compute_with_cache=False,
    )
    for a, d in zip(*as_pictures(scene), strict=True):
        metric.update(
            [
                {
                    "boxes": torch.from_numpy(d.boxes_xyxy),
                    "labels": torch.from_numpy(d.labels),
                    "scores": torch.from_numpy(d.scores),
                }
            ],
            [{"boxes": torch.from_numpy(a.boxes_xyxy), "labels": torch.from_numpy(a.labels)}],
        )
    return lambda: float(metric.compute()["map"])


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table."""

    name: str
    package: str
    load: Callable[[Scene], Compute]
    """Makes a contender's own structures of a scene, and gives what is to be timed."""


OURS = Contender("ssd_dist", "ssd-dist", ours)
WITH_CHECKS = Contender("ssd_dist, flattening and checking too", "ssd-dist", ours_with_checks)
OTHERS = (
    Contender("hotcoco", "hotcoco", with_hotcoco),
    Contender("faster-coco-eval", "faster-coco-eval", with_faster_coco_eval),
    Contender("pycocotools", "pycocotools", with_pycocotools),
    Contender("torchmetrics", "torchmetrics", with_torchmetrics),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a contender needed, in seconds and bytes."""

    loading: float
    seconds: float
    memory: int
    """The most that the process held, Python, its libraries and the input included."""
    map_11pt: float


def measure(contender: Contender, num_pictures: int) -> Measured:
    """In this process, which should do nothing else before or after."""
    torch.set_num_threads(1)
    scene = draw(num_pictures)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        compute = contender.load(scene)
        loading = time.process_time() - start
        seconds = []
        for _ in range(REPEATS):
            start = time.process_time()
            map_11pt = compute()
            seconds.append(time.process_time() - start)
    return Measured(loading, min(seconds), peak_memory(), map_11pt)


def measure_growth(num_pictures: int) -> tuple[float, float, int]:
    """Seconds of ours at this size and at ten times the size, by turns, and the bytes held."""
    scenes = draw(num_pictures), draw(10 * num_pictures)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for scene, its_seconds in zip(scenes, seconds, strict=True):
            compute = ours(scene)
            compute()  # what the other size has left in the caches is gone
            start = time.process_time()
            compute()
            its_seconds.append(time.process_time() - start)
    return min(seconds[0]), min(seconds[1]), peak_memory()


def peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def apart(function: Callable[..., T], *arguments: object) -> T:
    """In a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main(quick: bool = False, growth: bool = True, only: tuple[str, ...] = ()) -> None:
    """Times 11-point AP beside other programs.

    Args:
        quick: a tenth of the pictures.
        growth: ours at ten times the size as well.
        only: these of the others alone, by name.
    """
    for pool in ("OMP", "OPENBLAS", "MKL", "RAYON"):  # read where the new processes load them
        os.environ[f"{pool}_NUM_THREADS"] = "1"
    console = Console(width=120)
    num_pictures = NUM_PICTURES // 10 if quick else NUM_PICTURES
    console.print(
        f"{num_pictures:,} pictures, {NUM_CLASSES} classes, "
        f"{num_pictures * NUM_OBJECTS // NUM_PICTURES:,} objects, "
        f"{num_pictures * DETECTIONS_A_PICTURE:,} detections; NumPy {np.__version__}, one thread"
    )
    table = Table()
    for column in ("", "version", "loading s", "AP s", "times ours", "peak MiB", "mAP"):
        table.add_column(column, justify="left" if column in ("", "version") else "right")
    others = [other for other in OTHERS if not only or other.name in only]
    base = float("nan")
    for contender in (OURS, WITH_CHECKS, *others):
        try:
            version = importlib.metadata.version(contender.package)
        except importlib.metadata.PackageNotFoundError:
            table.add_row(contender.name, "not installed: pip install '.[bench]'")
            continue
        measured = apart(measure, contender, num_pictures)
        if contender is OURS:
            base = measured.seconds
        table.add_row(
            contender.name,
            version,
            f"{measured.loading:.2f}",
            f"{measured.seconds:.3f}",
            f"{measured.seconds / base:.1f}",
            f"{measured.memory / 2**20:.0f}",
            f"{measured.map_11pt:.4f}",
        )
    console.print(table)
    if growth:
        small, large, memory = apart(measure_growth, num_pictures)
        console.print(
            f"ssd_dist at ten times the size: {large:.3f} s, {large / small:.1f} times as long as "
            f"{small:.3f} s, taken by turns; peak {memory / 2**20:.0f} MiB for both"
        )


if __name__ == "__main__":
    tyro.cli(main)
