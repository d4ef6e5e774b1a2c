"""How well it detects: average precision, thresholds, COCO's numbers, confusions, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_dist.report.accuracy_plots import precision_recall
from ssd_dist.report.content import ReportContent
from ssd_dist.report.svg import NUM_SERIES

ClassRow = dict[str, Any]

MOST_CURVES = 24
"""With more classes than this the curves are folded away."""
_MOST_IN_MATRIX = 20
_MOST_CONFUSIONS = 30
_NOTHING = "nothing"

_ERRORS = {
    "background": "There is no object: nowhere an IoU of {b} or more.",
    "box": "The class is right, but the box lies badly: IoU between {b} and {t}.",
    "class": "The box is right, the class wrong.",
    "both": "The class is wrong, and the box lies badly.",
    "duplicate": "The object was found already, with a higher score.",
    "missed": "An object that no detection is about.",
}
_COCO = (
    ("AP over IoU 0.50 to 0.95", {"AP": "all", "AP50": "at 0.50", "AP75": "at 0.75"}),
    ("AP by size", {"AP_small": "small", "AP_medium": "medium", "AP_large": "large"}),
    ("AR by detections", {"AR_1": "1", "AR_10": "10", "AR_100": "100"}),
    ("AR by size", {"AR_small": "small", "AR_medium": "medium", "AR_large": "large"}),
)


def class_rows(content: ReportContent) -> list[ClassRow]:
    """One row a class: its AP both ways, its ranks, its best threshold and its mistakes."""
    voc, summary = content.voc, content.summary
    return [
        {
            "name": name,
            "series": index % NUM_SERIES,
            "ap": voc.ap_11pt[name],
            "ap_area": voc.ap_area[name],
            "num_objects": voc.num_objects[name],
            "best": summary.best_f1[name],
            "ranks": voc.ranks[name],
            "errors": summary.errors[index + 1],
        }
        for index, name in enumerate(content.class_names)
    ]


def accuracy(content: ReportContent) -> dict[str, Any]:
    """What the section shows beside the classes' rows: curves of the classes that occur, COCO's
    numbers, confusions and mistakes."""
    options = content.voc.options
    largest = max(content.summary.map_lost.values(), default=0.0)
    meanings = {
        kind: text.format(b="0.1", t=f"{options.iou_threshold:g}") for kind, text in _ERRORS.items()
    }
    return {
        "iou_threshold": options.iou_threshold,
        "curves": [
            {
                "name": name,
                "series": index % NUM_SERIES,
                "ap": content.voc.ap_11pt[name],
                "plot": precision_recall(content.voc.curves[name], content.voc.ranks[name], index),
            }
            for index, name in enumerate(content.class_names)
            if content.voc.ap_11pt[name] is not None
        ],
        "coco": _coco(content.summary.coco),
        "confusion": _confusion(content),
        "errors": [
            {
                "kind": kind,
                "meaning": meanings[kind],
                "count": content.summary.errors[0][kind],
                "map_lost": lost,
                "width": lost / largest if largest > 0 else 0.0,
            }
            for kind, lost in sorted(content.summary.map_lost.items(), key=lambda item: -item[1])
        ],
        "kinds": ["correct", *_ERRORS],
    }


def _coco(values: dict[str, float | None] | None) -> list[dict[str, Any]]:
    if values is None:
        return []
    return [
        {"title": title, "pairs": [(label, values[key]) for key, label in names.items()]}
        for title, names in _COCO
    ]


def _confusion(content: ReportContent) -> dict[str, Any]:
    """The matrix with the background last; of many classes only its largest confusions.

    `rows`: name, and a cell for each column: the count, its share of the row, and whether it is
    right. `largest`: object, what it was taken for, count, share of the row.
    """
    order = [*range(1, len(content.class_names) + 1), 0]
    names = [*content.class_names, _NOTHING]
    matrix = content.summary.confusion[np.ix_(order, order)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(content.class_names) > _MOST_IN_MATRIX:
        return {"names": names, "rows": [], "largest": _largest(names, matrix, shares)}
    last = len(order) - 1
    rows = [
        {
            "name": name,
            "cells": [
                {
                    "count": int(matrix[i, j]),
                    "share": float(shares[i, j]),
                    "right": i == j,
                    "void": i == j == last,
                }
                for j in range(len(order))
            ],
        }
        for i, name in enumerate(names)
    ]
    return {"names": names, "rows": rows, "largest": []}


def _largest(names: Sequence[str], matrix: np.ndarray, shares: np.ndarray) -> list[dict[str, Any]]:
    wrong = matrix * ~np.eye(len(names), dtype=bool)
    flat = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    places = [divmod(int(place), len(names)) for place in flat]
    return [
        {
            "object": names[i],
            "detected": names[j],
            "count": int(wrong[i, j]),
            "share": float(shares[i, j]),
        }
        for i, j in places
        if wrong[i, j]
    ]
