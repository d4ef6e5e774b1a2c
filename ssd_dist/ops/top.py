"""The highest of many scores, of equal ones the first.

`Tensor.topk` takes equal ones in an order that depends on how many others there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROUP = 32
"""Neighbours of which only the highest is looked at at first."""


def top(score: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest along the last dimension, highest first, of equal ones the first in
    order: (…, L) float32 of at least 0, or -1, → (…, count) scores and int64 places.

    They lie in the groups of neighbours whose maxima are highest: of thousands only the members of
    `count` groups have to be ordered.
    """
    length = score.shape[-1]
    every = torch.arange(length, device=score.device)
    num_groups = length // _GROUP
    if num_groups <= 2 * count:
        place = _first_highest(score, every, count)
        return score.gather(-1, place), place
    whole = num_groups * _GROUP
    highest = score[..., :whole].unflatten(-1, (num_groups, _GROUP)).amax(dim=-1)
    group = _first_highest(highest, every[:num_groups], count)
    member = (group.unsqueeze(-1) * _GROUP + every[:_GROUP]).flatten(-2)
    member = torch.cat([member, every[whole:].expand(*score.shape[:-1], -1)], dim=-1)
    own = score.gather(-1, member)
    place = _first_highest(own, member, count)
    return own.gather(-1, place), member.gather(-1, place)


def _first_highest(score: Tensor, number: Tensor, count: int) -> Tensor:
    """Places of the highest scores along the last dimension; of equal ones those with the lowest
    number. Floats of at least 0 have as integers, by their bits, the same order."""
    key = score.view(torch.int32).long().mul_(2**32).sub_(number)
    return key.topk(count, dim=-1).indices
