"""All that is measured of a detector on a split, in one call, and its form in JSON.

C classes; each measure is explained in its own module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ssd_dist.evaluation.assignment import round_decimals
from ssd_dist.evaluation.bootstrap import Interval, bootstrap_map
from ssd_dist.evaluation.coco_ap import coco_summary
from ssd_dist.evaluation.confusion import confusion_matrix
from ssd_dist.evaluation.error_kinds import count_errors, map_lost
from ssd_dist.evaluation.operating_point import OperatingPoint, best_f1, score_thresholds
from ssd_dist.evaluation.options import PRESETS, ApOptions
from ssd_dist.evaluation.tables import flatten_annotations, flatten_detections
from ssd_dist.evaluation.voc_ap import VocResult, evaluate_voc
from ssd_dist.structures import Annotation, Detections

_BACKGROUND_IOU = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """A detector on a split."""

    class_names: tuple[str, ...]
    num_images: int
    voc: VocResult
    """11-point AP, area AP, rank table and curves, and the options they were computed with."""
    coco: dict[str, float | None] | None
    """COCO's twelve numbers by name, see `coco_ap.NAMES`; None: not asked for."""
    best_f1: dict[str, OperatingPoint | None]
    """Class name → the score threshold with the largest F1, and precision and recall there."""
    score_thresholds: dict[str, float]
    """Class name → score from which on its detections are in `confusion` and `errors`: that of the
    best F1, and 0.5 where there is none."""
    confusion: np.ndarray
    """(C+1, C+1) int64: rows ground truth, columns detected, index 0 background."""
    errors: dict[int, dict[str, int]]
    """Label → kind of error, see `error_kinds.KINDS` → how many; 0: all classes together."""
    map_lost: dict[str, float]
    """Kind of error → how much higher `voc.map_11pt` would be without it."""
    map_11pt_interval: Interval | None
    """95 % bootstrap interval of `voc.map_11pt` over pictures; None: not asked for."""


def summarize(
    annotations: Sequence[Annotation],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    *,
    options: ApOptions = PRESETS["exact"],
    with_coco: bool = True,
    num_resamples: int = 1000,
) -> Summary:
    """Computes everything; `with_coco` says whether COCO's numbers too, which take longest.

    `class_names[i]` is the name of label i + 1; pictures without detections may be left out of
    `detections`. `options` hold for all but COCO's numbers and the confusion matrix, which have
    rules of their own (the matrix takes the IoU threshold). `num_resamples` 0 leaves the bootstrap
    interval out.

    Raises ValueError where `evaluate_voc` does: for a picture, box, score or label that can't be,
    naming picture and row, and if there is no object to be found.
    """
    voc = evaluate_voc(annotations, detections, class_names, options=options)
    points = best_f1(voc)
    thresholds = score_thresholds(points)
    num_classes = len(class_names)
    objects = flatten_annotations(annotations, num_classes)
    found = flatten_detections(detections, annotations, num_classes)
    # The thresholds are scores as the options round them: none of these may fall short of its own.
    rounded = found
    if options.score_decimals is not None:
        rounded = replace(found, scores=round_decimals(found.scores, options.score_decimals))
    by_label = list(thresholds.values())
    background_iou = min(_BACKGROUND_IOU, options.iou_threshold / 2)
    return Summary(
        class_names=tuple(class_names),
        num_images=len(annotations),
        voc=voc,
        coco=coco_summary(annotations, detections, class_names) if with_coco else None,
        best_f1=points,
        score_thresholds=thresholds,
        confusion=confusion_matrix(
            objects,
            rounded,
            num_classes,
            score_threshold=by_label,
            iou_threshold=options.iou_threshold,
        ),
        errors=count_errors(
            objects,
            rounded,
            num_classes,
            score_threshold=by_label,
            options=options,
            background_iou=background_iou,
        ),
        map_lost=map_lost(
            objects, found, num_classes, options=options, background_iou=background_iou
        ),
        map_11pt_interval=(
            bootstrap_map(
                objects,
                found,
                num_classes,
                options=options,
                num_resamples=num_resamples,
                num_images=len(annotations),
            )
            if num_resamples
            else None
        ),
    )


def summary_json(summary: Summary, preset: str) -> dict[str, Any]:
    """The summary in dicts, lists and numbers, for `json.dumps`; nothing is rounded.

    `preset` is the name that the options go by; beside it stands every rule as it was applied. A
    class without objects is null in `ap_11pt`, `ap_area` and `best_f1`, and a recall level that is
    never reached has null for its confidence.
    """
    voc = summary.voc
    return {
        "map_11pt": voc.map_11pt,
        "ap_11pt": voc.ap_11pt,
        "map_11pt_interval": (
            None if summary.map_11pt_interval is None else list(summary.map_11pt_interval)
        ),
        "map_area": voc.map_area,
        "ap_area": voc.ap_area,
        "coco": summary.coco,
        "ranks": {name: [list(rank) for rank in ranks] for name, ranks in voc.ranks.items()},
        "best_f1": {
            name: None if point is None else point._asdict()
            for name, point in summary.best_f1.items()
        },
        "confusion": {
            "class_names": ["background", *summary.class_names],
            "matrix": summary.confusion.tolist(),
            "score_thresholds": summary.score_thresholds,
        },
        "errors": {
            "all": summary.errors[0],
            "by_class": {
                name: summary.errors[label]
                for label, name in enumerate(summary.class_names, start=1)
            },
            "map_lost": summary.map_lost,
            "score_thresholds": summary.score_thresholds,
        },
        "num_images": summary.num_images,
        "num_objects": voc.num_objects,
        "class_names": list(summary.class_names),
        "options": {"preset": preset, **asdict(voc.options)},
    }
