"""The report's numbers for other programs: report.json and detections.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ssd_dist.evaluation.summary import summary_json
from ssd_dist.repeated import repeated_json
from ssd_dist.report.content import ReportContent
from ssd_dist.structures import Detections


def report_json(content: ReportContent) -> str:
    """Every number of the report, unrounded; NaN and infinity become null.

    All of `evaluation.summary.summary_json` stands at the top level; `complexity`, `timing`, `law`
    and `law_details` are as their analyses give them, null where they were not measured.
    """
    law = content.law or {"law": None, "law_details": None}
    report = {
        "model": content.model_name,
        **summary_json(content.summary, "exact"),
        "iou_threshold": content.voc.options.iou_threshold,
        "validation_map_11pt": content.validation_map_11pt,
        "num_parameters": content.complexity["total_params"],
        "num_macs": content.complexity["total_macs"],
        "time_per_image_ms": content.timing["inference_ms_per_image"],
        "hyperparameters": content.hyperparameters,
        "data": content.data_name,
        "data_fingerprint": content.data_fingerprint,
        "split": content.split,
        "checkpoint": content.checkpoint,
        "config": content.config,
        "complexity": content.complexity,
        "timing": content.timing,
        "law": law["law"],
        "law_details": law["law_details"],
        "leaderboard": (
            None
            if content.leaderboard is None
            else [asdict(trial) for trial in content.trials_by_map()]
        ),
        "learned": None if content.learned is None else asdict(content.learned),
        "repeats": _repeats(content),
        "training_curve": content.training_curve,
        "provenance": content.provenance,
    }
    return json.dumps(plain(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def detections_json(detections: Sequence[Detections], class_names: Sequence[str]) -> str:
    """COCO's results format: a list of {image_id, category, bbox, score}.

    `category` is the class name; `bbox` is x, y, width, height in pixels; nothing is rounded.
    """
    rows = (json.dumps(row, ensure_ascii=False) for row in coco_results(detections, class_names))
    return "[\n" + ",\n".join(rows) + "\n]\n"


def coco_results(
    detections: Iterable[Detections], class_names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Entries of COCO's results format, one for each detection."""
    for found in detections:
        boxes_xyxy = np.asarray(found.boxes_xyxy, dtype=np.float64).reshape(-1, 4)
        boxes_xywh = np.concatenate(
            [boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1
        )
        for box, label, score in zip(
            boxes_xywh.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            yield {
                "image_id": found.image_id,
                "category": class_names[label - 1],
                "bbox": box,
                "score": score,
            }


def _repeats(content: ReportContent) -> dict[str, Any] | None:
    """`configurations`, best mean first, and the fields of the judgement."""
    if content.repeats is None or content.judgement is None:
        return None
    configurations = [repeated_json(one) for one in content.repeats]
    return {"configurations": configurations, **asdict(content.judgement)}


def plain(value: Any) -> Any:
    """The same in dicts, lists and scalars that JSON has; what it has not becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
