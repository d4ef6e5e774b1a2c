"""From the network's output to detections: softmax, decoding, threshold, NMS."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from ssd_dist.ops.boxes import decode
from ssd_dist.ops.scores import foreground_odds
from ssd_dist.ops.top import top

_NMS_AT_ONCE = 2**7
"""Candidates that a CPU compares with each other at once: NMS takes the square of their number."""


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
    candidates_of: Literal["image", "class"] = "image",
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Detections of a batch: for each image (boxes_xyxy, labels, scores), highest score first.

    The `max_candidates` highest-scoring (prior, class) pairs of an image above `score_threshold`
    enter non-maximum suppression, of equal scores the first; boxes of different images or classes
    never suppress each other.

    Args:
        loc: (B, P, 4) offsets.
        conf: (B, P, C+1) class scores (logits), background first.
        priors_cxcywh: (P, 4), relative.
        score_threshold: pairs at or below it are dropped; 0 to 1.
        nms_iou_threshold: of two boxes that overlap more, the lower score is dropped.
        max_candidates: at most this many pairs enter NMS.
        max_detections: at most this many detections of an image are returned.
        candidates_of: what has `max_candidates`: an image, or each class of an image, as in
            torchvision's detectors. The two differ where an image has more pairs above the
            threshold than that, and NMS leaves fewer than `max_detections` of the best of them.

    Returns:
        B triples: boxes (N, 4) float32 relative, clipped to 0…1; labels (N,) int64, 1…C; scores
        (N,) float32.
    """
    num_images, num_classes = len(conf), conf.shape[2] - 1
    scores, pair = _possible_pairs(conf, score_threshold)  # (B, L), (B, L)
    if scores.shape[1] == 0:
        nothing = loc.new_zeros(0, dtype=torch.float32)
        return [(nothing.view(0, 4), nothing.long(), nothing)] * num_images
    image = torch.arange(num_images, device=conf.device).unsqueeze(1)
    limit = max_candidates
    while True:
        score, place = top(scores, min(limit, scores.shape[1]))  # (B, K)
        best = pair.gather(1, place)
        labels, prior = best % num_classes + 1, best // num_classes
        boxes = decode(loc[image, prior].float(), priors_cxcywh.float()[prior]).clamp(0, 1)
        valid = score > score_threshold
        exhausted = ~valid[:, -1] | (score.shape[1] == scores.shape[1])
        if candidates_of == "class" and limit > max_candidates:
            valid &= _rank_in_class(labels) < max_candidates
        # Clipping can leave a box outside the picture without area: nothing to see there.
        valid &= (boxes[..., 2:] > boxes[..., :2]).all(-1)
        boxes, labels, score = boxes[valid], labels[valid], score[valid]
        where = image.expand_as(valid)[valid]
        kept = _suppress(boxes, labels, score, where, nms_iou_threshold)
        counts = where[kept].bincount(minlength=num_images)
        # NMS goes by falling score, so that pairs after these change nothing about them: where
        # they are enough of an image's detections, its other pairs need not be looked at.
        if candidates_of == "image" or bool((exhausted | (counts >= max_detections)).all()):
            break
        limit *= 4
    return [
        (boxes[part], labels[part], score[part])
        for part in (own[:max_detections] for own in kept.split(counts.tolist()))
    ]


def _possible_pairs(conf: Tensor, score_threshold: float) -> tuple[Tensor, Tensor]:
    """The (prior, class) pairs of each image that may score above the threshold, all others left
    out: their probabilities (B, L), zeros where padded, and numbers prior · C + class - 1 (B, L),
    which rise.

    Most priors see background: the softmax is worked out for the others alone.
    """
    num_images, num_priors, num_outputs = conf.shape
    least = score_threshold / (1 - score_threshold) if score_threshold < 1 else float("inf")
    possible = foreground_odds(conf) > least * (1 - 1e-4)  # the odds are rounded
    image, prior = possible.nonzero(as_tuple=True)
    if 4 * len(image) > possible.numel():
        every = torch.arange(num_priors * (num_outputs - 1), device=conf.device)
        scores = conf.float().softmax(-1).nan_to_num_(0.0)  # below, NaN is not above `least`
        return scores[..., 1:].flatten(1), every.expand(num_images, -1)
    scores = conf[image, prior].float().softmax(-1)[:, 1:]
    row, column = (scores > score_threshold).nonzero(as_tuple=True)
    image, number = image[row], prior[row] * (num_outputs - 1) + column
    counts = image.bincount(minlength=num_images)
    rank = torch.arange(len(image), device=conf.device) - (counts.cumsum(0) - counts)[image]
    shape = (num_images, int(counts.max()))
    above, pair = scores.new_zeros(shape), number.new_zeros(shape)
    above[image, rank], pair[image, rank] = scores[row, column], number
    return above, pair


def _rank_in_class(labels: Tensor) -> Tensor:
    """How many earlier entries of an image have the same label: (B, K) → (B, K) int64."""
    in_order, order = labels.sort(dim=1, stable=True)
    first = torch.searchsorted(in_order, in_order)
    rank = torch.arange(labels.shape[1], device=labels.device) - first
    return torch.empty_like(labels).scatter_(1, order, rank)


def _suppress(
    boxes: Tensor, labels: Tensor, scores: Tensor, image: Tensor, iou_threshold: float
) -> Tensor:
    """What NMS keeps of (N, 4), (N,), (N,), (N,), which stand image by image: positions, image by
    image, by falling score within each."""
    if len(image) == 0:
        return image
    # Boxes lie in 0…1: steps of 2 keep groups apart. In float64 the shift rounds nothing off, so
    # that the result does not depend on where in a batch an image stands.
    group = (image * (labels.max() + 1) + labels).double() * 2
    shifted, ranked = boxes.double() + group.unsqueeze(1), scores.double()
    kept, start = [], 0
    for size in _parts_of_images(image):
        part = slice(start, start + size)
        kept.append(nms(shifted[part], ranked[part], iou_threshold) + start)
        start += size
    positions = torch.cat(kept)
    # By falling score over a part; a stable sort by image keeps that order within each.
    return positions[image[positions].argsort(stable=True)]


def _parts_of_images(image: Tensor) -> list[int]:
    """Numbers of candidates, of whole images, that a CPU compares at once; a GPU takes them all."""
    if image.device.type != "cpu":
        return [len(image)]
    counts = image.bincount()
    part = (counts.cumsum(0) - counts) // _NMS_AT_ONCE
    return counts.new_zeros(int(part[-1]) + 1).index_add_(0, part, counts).tolist()
