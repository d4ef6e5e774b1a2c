"""Matching: which prior answers for which object (SSD paper, section 2.2).

B images, P priors, M ground-truth boxes of an image after padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd_dist.ops.boxes import area, cxcywh_to_xyxy, encode, pairwise_iou
from ssd_dist.ops.by_device import parts, places, waits_for_nobody
from ssd_dist.ops.top import top
from ssd_dist.structures import Targets

IGNORED = -1
"""Label of a prior that is neither a positive nor a negative."""

_LISTED = 64
"""Free priors that an object notes down each time that it looks at all of them."""


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
        iou_threshold: above 0, at most 1.

    Returns:
        labels (B, P) int64 (0 background, -1 ignored), loc (B, P, 4) float32, zeros but for
        positives.
    """
    # Padding becomes boxes without area, which overlap nothing.
    present = labels > 0
    boxes_xyxy = torch.where(present.unsqueeze(-1), boxes_xyxy.float(), 0.0)
    priors_cxcywh = priors_cxcywh.float()
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh)
    images = torch.arange(len(labels), device=labels.device).unsqueeze(1)
    best_object, own_prior = _overlaps(boxes_xyxy, present, priors_xyxy, iou_threshold)
    own_prior = _part_with(own_prior, boxes_xyxy, present, priors_xyxy)
    # A prior goes to the object that takes it for its own, the first of them; without one to the
    # object that it overlaps most. Negative numbers, from the last backwards, tell the former.
    none = present.shape[1]
    takers = torch.where(present, torch.arange(-none, 0, device=labels.device), none)
    best_object.scatter_reduce_(1, own_prior, takers, "amin")  # (B, P)

    at = places(best_object < none)
    image = images.expand_as(best_object)[at]
    prior = torch.arange(len(priors_cxcywh), device=labels.device).expand_as(best_object)[at]
    matched = best_object[at] % none
    found = torch.where(difficult[image, matched], IGNORED, labels[image, matched])
    found = torch.where(best_object[at] < none, found, 0)
    positive = (found > 0).unsqueeze(-1)
    # Encode a harmless box where there is no positive: the log of a padded box would be infinite.
    boxes = torch.where(positive, boxes_xyxy[image, matched], priors_xyxy[prior])
    prior_labels = torch.zeros(best_object.shape, dtype=torch.int64, device=labels.device)
    prior_labels[at] = found
    loc = torch.zeros(*best_object.shape, 4, device=labels.device)
    loc[at] = torch.where(positive, encode(boxes, priors_cxcywh[prior]), 0.0)
    return Targets(labels=prior_labels, loc=loc)


def _overlaps(
    boxes_xyxy: Tensor, present: Tensor, priors_xyxy: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """For each prior the object with which it has the highest IoU, (B, P), M where none reaches
    `iou_threshold`; and for each object the prior with which it has the highest, (B, M), anything
    where padded. Of equal ones the first."""
    num_objects = present.shape[1]
    if not waits_for_nobody(present):
        iou = pairwise_iou(boxes_xyxy, priors_xyxy)
        highest, best_object = iou.max(dim=1)
        return torch.where(highest >= iou_threshold, best_object, num_objects), iou.argmax(dim=-1)
    # An IoU is at most the ratio of the areas. By falling or rising area, objects that are worked
    # on together have the priors of about their size in common, a quarter of all: the others can't
    # reach the threshold, nor be the best of an object for which one of these does.
    at = present.nonzero(as_tuple=True)
    row_area, order = area(boxes_xyxy[at]).sort()
    image, place = at[0][order], at[1][order]
    rows = boxes_xyxy[image, place]  # a row an object, of all images
    prior_area = area(priors_xyxy)
    least = iou_threshold * (1 - 1e-4)  # areas are rounded
    # The higher IoU, of equal ones the first object: positive floats have the order of their bits.
    keys = torch.zeros(len(present), len(priors_xyxy), dtype=torch.int64)
    highest = rows.new_zeros(len(rows))
    best = torch.zeros_like(image)
    row_bytes = priors_xyxy.element_size() * len(priors_xyxy)
    for part in parts(rows, len(rows), row_bytes // 2):
        smallest, largest = row_area[part][[0, -1]]
        near = (prior_area >= smallest * least) & (prior_area * least <= largest)
        [number] = near.nonzero(as_tuple=True)
        if len(number) == 0:
            continue
        iou = pairwise_iou(rows[part], priors_xyxy[number])
        row, column = (iou >= iou_threshold).nonzero(as_tuple=True)
        cell = image[part][row] * len(priors_xyxy) + number[column]
        key = (iou[row, column].view(torch.int32).long() << 32) + num_objects - place[part][row]
        keys.view(-1).scatter_reduce_(0, cell, key, "amax")
        highest[part], column = iou.max(dim=1)
        best[part] = number[column]
    [unsure] = (highest < iou_threshold).nonzero(as_tuple=True)
    for part in parts(rows, len(unsure), row_bytes):
        best[unsure[part]] = pairwise_iou(rows[unsure[part]], priors_xyxy).argmax(dim=1)
    best_prior = torch.zeros_like(present, dtype=torch.int64)
    best_prior[image, place] = best
    return keys.bitwise_and_(0xFFFFFFFF).neg_().add_(num_objects), best_prior


def _part_with(
    best_prior: Tensor, boxes_xyxy: Tensor, present: Tensor, priors_xyxy: Tensor
) -> Tensor:
    """One prior an object, (B, M): the pair of highest IoU first, then the highest among the
    objects and priors that remain, and so on (greedy bipartite matching). Of equal ones the first
    object, and its first prior. Objects beyond the number of priors get one that is taken already.

    All objects ask for their best prior; those that are outdone ask for the best that no better
    one has asked for, and so on. The result is the same in whatever order they ask.
    """
    if not waits_for_nobody(present):
        return _best_free_priors(pairwise_iou(boxes_xyxy, priors_xyxy), present)
    num_objects, num_priors = present.shape[1], len(priors_xyxy)
    image, place = present.nonzero(as_tuple=True)
    rows = boxes_xyxy[image, place]  # a row an object, of all images
    own = best_prior[image, place]
    overlap = pairwise_iou(rows.unsqueeze(1), priors_xyxy[own].unsqueeze(1)).flatten(1)
    rank = _rank(overlap, place, num_objects).squeeze(1)
    asked = rank.new_zeros(len(present), num_priors)  # the rank of the best that has asked for each
    # Of an object that was outdone the best that were free when it last had to look around.
    count = min(num_priors, _LISTED)
    listed, list_rank = rank.new_zeros(len(rows), count), rank.new_full((len(rows), count), -1)
    while True:
        asked.view(-1).scatter_reduce_(0, image * num_priors + own, rank, "amax")
        [outdone] = ((rank < asked[image, own]) & (rank > 0)).nonzero(as_tuple=True)
        if len(outdone) == 0:
            break
        is_open = list_rank[outdone] >= asked[image[outdone, None], listed[outdone]]
        without = outdone[~is_open.any(dim=1)]
        for part in parts(rows, len(without), priors_xyxy.element_size() * num_priors):
            row = without[part]
            iou = pairwise_iou(rows[row], priors_xyxy)
            is_free = _rank(iou, place[row], num_objects) >= asked[image[row]]
            overlap, listed[row] = top(torch.where(is_free, iou, -1.0), count)
            list_rank[row] = _rank(overlap, place[row], num_objects)
        if len(without) > 0:
            is_open = list_rank[outdone] >= asked[image[outdone, None], listed[outdone]]
        column = is_open.byte().argmax(dim=1)  # the first
        has = is_open.any(dim=1)
        first_choice = best_prior[image[outdone], place[outdone]]
        own[outdone] = torch.where(has, listed[outdone, column], first_choice)
        rank[outdone] = torch.where(has, list_rank[outdone, column], 0)  # 0: asks no more
    best_prior[image, place] = own
    return best_prior


def _rank(overlap: Tensor, place: Tensor, num_objects: int) -> Tensor:
    """Whom a prior prefers: the higher IoU, of equal ones the first object.

    (R, K) IoU of the objects at the places (R,) of their images → (R, K) int64, above 0; below
    where an IoU is. As whole numbers floats of at least 0 have their own order.
    """
    order = (num_objects - place).unsqueeze(-1)
    return overlap.view(torch.int32).long() * (num_objects + 1) + order


def _best_free_priors(iou: Tensor, present: Tensor) -> Tensor:
    """The above for the (B, M, P) IoU → (B, M), without a look at the data.

    Of each object only its M best priors matter: the others can take at most M - 1 of them. Each
    round settles at least the best pair that remains.
    """
    num_images, num_objects, num_priors = iou.shape
    overlap, prior = top(iou, min(num_objects, num_priors))  # (B, M, K)
    rank = _rank(overlap, torch.arange(num_objects, device=iou.device), num_objects)
    rank.masked_fill_(~present.unsqueeze(-1), -1)
    asked = rank.new_zeros(num_images, num_priors)
    for _ in range(num_objects):
        open_to = rank >= asked.gather(1, prior.flatten(1)).view_as(rank)
        place = open_to.byte().argmax(dim=-1, keepdim=True)  # the first
        own = prior.gather(-1, place).squeeze(-1)
        asks = torch.where(open_to.any(dim=-1), rank.gather(-1, place).squeeze(-1), 0)
        asked = asked.scatter_reduce(1, own, asks, "amax")
    return own
