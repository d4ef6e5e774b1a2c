"""Matching: which prior answers for which object (SSD paper, section 2.2; DESIGN.md, 1).

B images, P priors, M ground-truth boxes of an image after padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd_dist.ops.boxes import cxcywh_to_xyxy, encode, pairwise_iou
from ssd_dist.structures import Targets

IGNORED = -1
"""Label of a prior that is neither a positive nor a negative."""


@torch.no_grad()
def match_priors(
    boxes_xyxy: Tensor,
    labels: Tensor,
    difficult: Tensor,
    priors_cxcywh: Tensor,
    iou_threshold: float = 0.5,
) -> Targets:
    """Targets of a whole batch.

    A prior is positive for the object it overlaps most if their IoU is at least `iou_threshold`;
    and every object takes its best prior whatever the IoU, two objects never the same one while
    another is free. A prior that goes to a difficult object is neither positive nor negative.

    Args:
        boxes_xyxy: (B, M, 4), relative; rows of padding hold anything finite.
        labels: (B, M) int64, 1…C; 0 where padded.
        difficult: (B, M) bool.
        priors_cxcywh: (P, 4), relative, P >= 1.
        iou_threshold: 0 to 1.

    Returns:
        labels (B, P) int64 (0 background, -1 ignored), loc (B, P, 4) float32, zeros but for
        positives.
    """
    boxes_xyxy, priors_cxcywh = boxes_xyxy.float(), priors_cxcywh.float()
    present = labels > 0
    iou = pairwise_iou(boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh))  # (B, M, P)
    iou.masked_fill_(~present.unsqueeze(-1), -1.0)

    best_iou, best_object = iou.max(dim=1)  # (B, P): the object that each prior overlaps most
    matched = best_iou >= iou_threshold
    # Written after the threshold, so that an object's own prior stays with it.
    own_prior = _best_free_priors(iou)  # (B, M)
    matched, best_object = _give_own_priors(matched, best_object, own_prior, present)

    prior_labels = labels.gather(1, best_object)
    prior_labels = torch.where(difficult.gather(1, best_object), IGNORED, prior_labels)
    prior_labels = torch.where(matched, prior_labels, 0)
    positive = (prior_labels > 0).unsqueeze(-1)
    prior_boxes = boxes_xyxy.gather(1, best_object.unsqueeze(-1).expand(-1, -1, 4))
    # Encode a harmless box where there is no positive: the log of a padded box would be infinite.
    prior_boxes = torch.where(positive, prior_boxes, cxcywh_to_xyxy(priors_cxcywh))
    loc = torch.where(positive, encode(prior_boxes, priors_cxcywh), 0.0)
    return Targets(labels=prior_labels, loc=loc)


def _best_free_priors(iou: Tensor) -> Tensor:
    """One prior an object, (B, M, P) → (B, M): the pair of highest IoU first, then the highest
    among the objects and priors that remain, and so on (greedy bipartite matching).

    Of each object only its M best priors matter: the others can take at most M - 1 of them.
    Objects beyond the number of priors get a prior that is taken already.
    """
    num_images, num_objects, num_priors = iou.shape
    num_candidates = min(num_objects, num_priors)
    score, prior = iou.topk(num_candidates, dim=-1)  # (B, M, K)
    chosen = prior[..., 0].clone()
    image = torch.arange(num_images, device=iou.device)
    gone = -2.0  # below padding's -1, so that padding is served last
    for _ in range(num_objects):
        best = score.flatten(1).argmax(dim=1)
        row = best // num_candidates
        taken = prior.flatten(1)[image, best]
        valid = score.flatten(1)[image, best] > gone
        chosen[image, row] = torch.where(valid, taken, chosen[image, row])
        score = score.masked_fill(prior == taken[:, None, None], gone)
        score[image, row] = gone
    return chosen


def _give_own_priors(
    matched: Tensor, best_object: Tensor, own_prior: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Enters each present object at its own prior. (B, P), (B, P), (B, M), (B, M) → (B, P) twice.

    Padding writes to a column of its own, P, that is cut off again: no indices that depend on data.
    """
    num_images, num_priors = matched.shape
    column = torch.where(present, own_prior, num_priors)
    objects = torch.arange(own_prior.shape[1], device=own_prior.device).expand_as(own_prior)
    extra = torch.zeros(num_images, 1, dtype=torch.int64, device=matched.device)
    best_object = torch.cat([best_object, extra], dim=1).scatter(1, column, objects)
    matched = torch.cat([matched, extra.bool()], dim=1).scatter(1, column, True)
    return matched[:, :num_priors], best_object[:, :num_priors]
