"""From the network's output to detections: softmax, decoding, threshold, NMS."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from ssd_dist.ops.boxes import decode


@torch.no_grad()
def detect(
    loc: Tensor,
    conf: Tensor,
    priors_cxcywh: Tensor,
    *,
    score_threshold: float,
    nms_iou_threshold: float,
    max_candidates: int,
    max_detections: int,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Detections of a batch: for each image (boxes_xyxy, labels, scores), highest score first.

    The `max_candidates` highest-scoring (prior, class) pairs of an image above `score_threshold`
    enter non-maximum suppression, which runs once for the whole batch; boxes of different images or
    classes never suppress each other.

    Args:
        loc: (B, P, 4) offsets.
        conf: (B, P, C+1) class scores (logits), background first.
        priors_cxcywh: (P, 4), relative.
        score_threshold: pairs at or below it are dropped.
        nms_iou_threshold: of two boxes that overlap more, the lower score is dropped.
        max_candidates: at most this many pairs of an image enter NMS.
        max_detections: at most this many detections of an image are returned.

    Returns:
        B triples: boxes (N, 4) float32 relative, clipped to 0…1; labels (N,) int64, 1…C; scores
        (N,) float32.
    """
    num_images, _, num_outputs = conf.shape
    scores = conf.float().softmax(-1)[..., 1:].flatten(1)  # (B, P·C)
    num_kept = min(max_candidates, scores.shape[1])
    scores, flat = scores.topk(num_kept, dim=1)  # (B, K)
    prior = flat // (num_outputs - 1)
    labels = flat % (num_outputs - 1) + 1
    loc = loc.float().gather(1, prior.unsqueeze(-1).expand(-1, -1, 4))
    boxes = decode(loc, priors_cxcywh.float()[prior]).clamp(0, 1)

    image = torch.arange(num_images, device=conf.device).unsqueeze(1).expand_as(labels)
    valid = scores > score_threshold
    # Clipping can leave a box outside the picture without area: nothing to see there.
    valid &= (boxes[..., 2:] > boxes[..., :2]).all(-1)
    boxes, labels, scores, image = boxes[valid], labels[valid], scores[valid], image[valid]
    # Boxes lie in 0…1: steps of 2 keep groups apart. In float64 the shift rounds nothing off, so
    # that the result does not depend on where in a batch an image stands.
    group = (image * num_outputs + labels).double() * 2
    kept = nms(boxes.double() + group.unsqueeze(1), scores.double(), nms_iou_threshold)

    # By falling score over the whole batch; a stable sort by image keeps that order within each.
    kept = kept[image[kept].argsort(stable=True)]
    counts = image[kept].bincount(minlength=num_images).tolist()
    return [
        (boxes[part][:max_detections], labels[part][:max_detections], scores[part][:max_detections])
        for part in kept.split(counts)
    ]
