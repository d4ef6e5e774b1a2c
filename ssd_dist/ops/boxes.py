"""Boxes: their two forms, their overlap, and their offsets from priors.

`_xyxy` is (left, top, right, bottom), `_cxcywh` is (centre x, centre y, width, height). Every
function takes any unit as long as its arguments share it, and any number of leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)
"""Scale of the centre's and of the size's offsets (SSD's "variances")."""

MAX_LOG_SIZE = 4.0
"""Decoded boxes are at most e^4 times their prior: keeps exp finite on an untrained network."""


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """(…, 4) corners → (…, 4) centre and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(…, 4) centre and size → (…, 4) corners."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def pairwise_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Intersection over union of every pair: (…, M, 4) × (…, P, 4) → (…, M, P), 0 to 1.

    Boxes without area overlap nothing: their IoU is 0. Not differentiable.
    """
    a, b = _planes(first_xyxy.unsqueeze(-2)), _planes(second_xyxy.unsqueeze(-3))
    intersection = torch.minimum(a[2], b[2])
    other = torch.maximum(a[0], b[0])
    intersection.sub_(other).clamp_(min=0)
    height = torch.minimum(a[3], b[3])
    torch.maximum(a[1], b[1], out=other)
    intersection.mul_(height.sub_(other).clamp_(min=0))
    union = torch.add(area(first_xyxy).unsqueeze(-1), area(second_xyxy).unsqueeze(-2), out=other)
    union.sub_(intersection).clamp_(min=torch.finfo(union.dtype).tiny)
    return intersection.div_(union)


def _planes(boxes_xyxy: Tensor) -> Tensor:
    """(…, 4) → (4, …): a coordinate's neighbours side by side, as vector instructions want them."""
    return boxes_xyxy.movedim(-1, 0).contiguous()


def area(boxes_xyxy: Tensor) -> Tensor:
    """(…, 4) → (…): width times height."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def encode(boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
    """Offsets of boxes from their priors (SSD paper, Eq. 2): (…, P, 4) and (P, 4) → (…, P, 4).

    The law: `decode(encode(boxes, priors), priors) == boxes`, for boxes with area and at most e^4
    times their prior.
    """
    boxes_cxcywh = xyxy_to_cxcywh(boxes_xyxy)
    centre = (boxes_cxcywh[..., :2] - priors_cxcywh[..., :2]) / priors_cxcywh[..., 2:]
    size = torch.log(boxes_cxcywh[..., 2:] / priors_cxcywh[..., 2:])
    return torch.cat([centre / VARIANCES[0], size / VARIANCES[1]], dim=-1)


def decode(loc: Tensor, priors_cxcywh: Tensor) -> Tensor:
    """Boxes of offsets: (…, P, 4) and (P, 4) → (…, P, 4) corners, not clipped to the picture."""
    centre = priors_cxcywh[..., :2] + loc[..., :2] * VARIANCES[0] * priors_cxcywh[..., 2:]
    log_size = (loc[..., 2:] * VARIANCES[1]).clamp(max=MAX_LOG_SIZE)
    return cxcywh_to_xyxy(torch.cat([centre, priors_cxcywh[..., 2:] * log_size.exp()], dim=-1))
