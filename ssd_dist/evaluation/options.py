"""Every rule in which programs that compute VOC's average precision differ, and what each does.

The programs were read, and all but `voc-devkit`, which is MATLAB's, were run: with its preset each
gives the same numbers on the same boxes. docs/average_precision.md has the table of who does what,
and what no option can bring back, such as the order of equal scores in an unstable sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ApOptions:
    """How average precision is computed; the defaults are this package's own rules, `exact`.

    Raises ValueError for a value out of its range.
    """

    iou_threshold: float = 0.5
    """IoU from which on a detection finds an object, above 0 and at most 1."""
    strict_iou: bool = False
    """IoU must exceed the threshold (>) instead of reaching it (>=)."""
    inclusive_pixels: bool = False
    """Coordinates name the first and the last pixel of a box: widths and heights, of overlaps too,
    are x2 - x1 + 1 instead of x2 - x1."""
    single_precision: bool = False
    """IoU is computed in float32 instead of float64, which moves overlaps within a rounding error
    of the threshold to its other side."""
    count_difficult: bool = False
    """Difficult objects are ordinary ones. If not, what finds them counts neither way."""
    difficult_in_recall: bool = False
    """Recall is divided by the number of all objects, although what finds a difficult one counts
    neither way: a class that has some cannot reach recall 1."""
    difficult_last: bool = False
    """Of objects that a detection overlaps equally, the first that is not difficult has it. If not,
    the first."""
    recall_levels: Literal["exact", "arange", "matlab"] = "exact"
    """The 11 recall levels: `exact` compares whole numbers, 10·TP >= i·n. `arange` are the float64
    numbers of `np.arange(0, 1.1, 0.1)` and `np.linspace(0, 1, 11)`, which at 0.3, 0.6 and 0.7 are a
    hair too large: a class that ends exactly there loses a point. `matlab` are those of `0:0.1:1`,
    which counts its upper half down from 1: too large at 0.3 alone."""
    mean_over: Literal["occurring", "all"] = "occurring"
    """The classes of the mean: those that have an object that counts, or all, the others as 0."""
    score_decimals: int | None = None
    """Scores are rounded to so many decimals before they are ranked; None: as they are."""
    box_decimals: int | None = None
    """Coordinates of detections are rounded to so many decimals; None: as they are."""
    corner_offset: float = 0.0
    """Pixels added to x1 and y1 of every detection, before they are rounded. Detectron2 takes 1 off
    these two where it reads objects, and adds it to the detections of its models. In coordinates of
    the annotation files this comes to nothing; for its models' own boxes it is 1."""

    def __post_init__(self) -> None:
        if not 0 < self.iou_threshold <= 1:
            raise ValueError(
                f"iou_threshold must be above 0 and at most 1, not {self.iou_threshold}"
            )
        if self.recall_levels not in ("exact", "arange", "matlab"):
            raise ValueError(
                f"recall_levels must be exact, arange or matlab, not {self.recall_levels!r}"
            )
        if self.mean_over not in ("occurring", "all"):
            raise ValueError(f"mean_over must be occurring or all, not {self.mean_over!r}")
        for name in ("score_decimals", "box_decimals"):
            decimals = getattr(self, name)
            # 24 bits of a float32 times 10**8 still fit a float64: see `round_decimals`.
            if decimals is not None and not 0 <= decimals <= 8:
                raise ValueError(f"{name} must be 0 to 8, or None for no rounding, not {decimals}")


# lib/datasets/voc_eval.py of py-faster-rcnn, from which many others are copied, behind text files.
_PY_FASTER_RCNN = ApOptions(
    strict_iou=True,
    inclusive_pixels=True,
    recall_levels="arange",
    mean_over="all",
    score_decimals=3,
    box_decimals=1,
)

PRESETS: Mapping[str, ApOptions] = MappingProxyType(
    {
        "exact": ApOptions(),
        # PASCAL VOC 2007's development kit, VOCevaldet.m; 2010's for the area.
        "voc-devkit": ApOptions(inclusive_pixels=True, recall_levels="matlab"),
        "py-faster-rcnn": _PY_FASTER_RCNN,
        # detectron2/evaluation/pascal_voc_evaluation.py, which is made of it.
        "detectron2": _PY_FASTER_RCNN,
        # VOCMetric(eval_mode="11points"); MMEval's VOCMeanAP(use_legacy_coordinate=True).
        "mmdetection": ApOptions(
            inclusive_pixels=True,
            single_precision=True,
            difficult_last=True,
            recall_levels="arange",
        ),
        # eval_detection_voc(use_07_metric=True)
        "chainercv": ApOptions(
            inclusive_pixels=True, single_precision=True, recall_levels="arange"
        ),
        # github.com/bes-dev/mean_average_precision, recall_thresholds=np.arange(0., 1.1, 0.1)
        "mean-average-precision": ApOptions(
            strict_iou=True,
            inclusive_pixels=True,
            difficult_in_recall=True,
            recall_levels="arange",
            mean_over="all",
        ),
        # The package of this name, which is imported as `podm`.
        "object-detection-metrics": ApOptions(count_difficult=True, recall_levels="arange"),
        # github.com/rafaelpadilla/Object-Detection-Metrics, which is no package.
        "rafaelpadilla": ApOptions(
            inclusive_pixels=True, count_difficult=True, recall_levels="arange"
        ),
        # kornia.metrics.mean_average_precision
        "kornia": ApOptions(strict_iou=True, count_difficult=True),
    }
)
"""Name → the rules of that program; read-only. To change one: `dataclasses.replace`."""
