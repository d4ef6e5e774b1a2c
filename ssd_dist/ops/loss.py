"""The objective: Eq. 1 with hard negative mining, and the L2 term of Eq. 2.

B images, P priors, C classes without background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_dist.ops.by_device import largest, places, take
from ssd_dist.ops.scores import foreground_odds
from ssd_dist.structures import Targets


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """The sums of Eq. 1 before they are divided by N; scalars, float32."""

    conf: Tensor
    """L_conf: softmax cross entropy of positives and of the hardest negatives."""
    loc: Tensor
    """L_loc: SmoothL1 on the encoded offsets of positives."""
    num_positives: Tensor
    """Matched priors of this batch, int64."""


def multibox_sums(loc: Tensor, conf: Tensor, targets: Targets, neg_pos_ratio: float) -> LossSums:
    """L_conf, L_loc and the number of positives of a batch (SSD paper, Eq. 1 to 3).

    In each image the `neg_pos_ratio` × positives negatives with the highest loss count; an image
    without positives has none. Ignored priors (label -1) count nowhere. Computed in float32
    whatever the network's precision.

    Args:
        loc: (B, P, 4) predicted offsets.
        conf: (B, P, C+1) class scores (logits), background first.
        targets: labels (B, P) and loc (B, P, 4).
        neg_pos_ratio: above 0.
    """
    positive = targets.labels > 0
    num_positives = positive.sum(1)  # (B,)
    num_negatives = (num_positives * neg_pos_ratio).long()
    counted = positive | hardest_negatives(conf.detach(), targets.labels, num_negatives)
    # A row a prior, of all images; only rows that count are worked out, where that can be known.
    labels, positive, counted = targets.labels.flatten(), positive.flatten(), counted.flatten()

    at = places(counted)
    scores = take(conf.flatten(0, 1), at).float()
    cross_entropy = F.cross_entropy(scores, labels[at].clamp(min=0), reduction="none")
    conf_sum = torch.where(counted[at], cross_entropy, 0.0).sum()

    at = places(positive)
    offsets = take(loc.flatten(0, 1), at).float()
    error = F.smooth_l1_loss(offsets, targets.loc.flatten(0, 1)[at], reduction="none").sum(-1)
    loc_sum = torch.where(positive[at], error, 0.0).sum()
    return LossSums(conf=conf_sum, loc=loc_sum, num_positives=num_positives.sum())


@torch.no_grad()
def hardest_negatives(conf: Tensor, labels: Tensor, num_wanted: Tensor) -> Tensor:
    """The negatives (label 0) with the highest loss, `num_wanted` (B,) of each image or as many as
    there are: (B, P, C+1) logits and (B, P) labels → (B, P) bool.

    Their loss is ln(1 + odds), so the odds rank them.
    """
    odds = foreground_odds(conf).masked_fill_(labels != 0, -1.0)
    # What counts is a prefix of the ranks: ties are cut exactly.
    hardest, prior = odds.topk(largest(num_wanted, odds.shape[1]), dim=1)
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    chosen = (rank < num_wanted.unsqueeze(1)) & ~(hardest < 0)  # NaN is hard: it should be seen
    return torch.zeros_like(labels, dtype=torch.bool).scatter_(1, prior, chosen)


def multibox_loss(sums: LossSums, alpha: float, num_positives: Tensor) -> Tensor:
    """Eq. 1, L = (L_conf + alpha · L_loc) / N, as one worker adds it to the gradient.

    `num_positives` is N over all workers; where it is 0, N is 1. Data-parallel training sums the
    workers' gradients: that of the whole batch's sums divided by N, however many workers there are.
    """
    return (sums.conf + alpha * sums.loc) * (1 / num_positives.clamp(min=1))


def l2_weights(model: nn.Module) -> list[Tensor]:
    """W of Eq. 2: the weights of convolutions and linear layers that train; no biases, and nothing
    of batch normalisation."""
    layers = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear
    return [m.weight for m in model.modules() if isinstance(m, layers) and m.weight.requires_grad]


def l2_term(weights: Iterable[Tensor], l2_lambda: float) -> Tensor:
    """Eq. 2's second term, lambda · ΣW², a scalar. Its gradient is 2 lambda W: what a weight decay
    of 2 lambda adds in SGD."""
    squares = torch._foreach_norm([w.detach().float() for w in weights])
    return l2_lambda * torch.stack(squares).square().sum()
