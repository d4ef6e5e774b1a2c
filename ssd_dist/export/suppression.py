"""Non-maximum suppression with shapes that do not depend on the picture, in torch and in ONNX.

Shapes: B images, K candidates an image, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torchvision.ops import nms

Suppress: TypeAlias = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
"""Takes what :func:`survivors` takes, and gives what it gives."""


def survivors(
    boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_threshold: float
) -> Tensor:
    """Which candidates no better one of the same image and class overlaps too much.

    Args:
        boxes_xyxy: (B, K, 4) float32, relative (0 to 1).
        scores: (B, K) float32; those that are not above 0 take no part.
        labels: (B, K) int64, 1…C.
        num_classes: C.
        iou_threshold: of two boxes that overlap more, the one of the lower score goes.

    Returns (B, K) bool.
    """
    image = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1)
    # As in ops/postprocess.py: steps of 2 keep groups apart, and in float64 they round nothing off.
    group = (image * (num_classes + 1) + labels).double() * 2
    shifted = (boxes_xyxy.double() + group.unsqueeze(-1)).flatten(0, 1)
    # Of those without a score none is better than any with one: they suppress only one another.
    kept = nms(shifted, scores.double().flatten(), iou_threshold)
    marked = torch.zeros_like(scores).flatten().index_fill(0, kept, 1.0)
    return (marked.view_as(scores) > 0) & (scores > 0)


@torch.library.custom_op("ssd_dist::survivors", mutates_args=())
def survivors_op(
    boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_threshold: float
) -> Tensor:
    """:func:`survivors` as one operator, so that the ONNX exporter can put another in its place."""
    return survivors(boxes_xyxy, scores, labels, num_classes, iou_threshold)


@survivors_op.register_fake
def _(
    boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_threshold: float
) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """For `torch.onnx.export`: ONNX's NonMaxSuppression in the place of `survivors_op`."""
    from onnxscript import opset18

    op: Any = opset18  # its own types know nothing of what the exporter passes

    def translated(
        boxes_xyxy: Any, scores: Any, labels: Any, num_classes: int, iou_threshold: float
    ) -> Any:
        classes = op.Constant(value_ints=list(range(1, num_classes + 1)))
        of_class = op.Equal(op.Unsqueeze(labels, [1]), op.Unsqueeze(classes, [0, 2]))
        # (B, C, K): a candidate has its score in its own class, and is below the threshold of 0 in
        # the others.
        class_scores = op.Where(of_class, op.Unsqueeze(scores, [1]), op.Constant(value_float=-1.0))
        num_candidates = op.Shape(scores, start=1, end=2)
        selected = op.NonMaxSuppression(
            boxes_xyxy,
            class_scores,
            num_candidates,
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[0.0]),
        )  # (…, 3): image, class, candidate
        places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
        nothing = op.Cast(op.Mul(scores, 0.0), to=6)  # int32
        ones = op.Expand(op.Constant(value_int=1), op.Shape(selected, start=0, end=1))
        return op.Cast(op.ScatterND(nothing, places, op.Cast(ones, to=6)), to=9)  # bool

    return {torch.ops.ssd_dist.survivors.default: translated}
