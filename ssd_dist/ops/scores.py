"""What the class scores of a prior say before any of them is worked out."""

from __future__ import annotations

import torch
from torch import Tensor

from ssd_dist.ops.by_device import parts


def foreground_odds(conf: Tensor) -> Tensor:
    """The odds of an object against the background: (B, P, C+1) logits → (B, P) float32.

    The sum of exp(x_c - x_0) over the classes c = 1…C, which is (1 - p_0) / p_0 of the softmax p.
    No class is more probable than odds / (1 + odds), and a background prior's cross entropy is
    ln(1 + odds): a single pass tells which priors may hold a detection, and which are the hardest
    negatives. From e^88 on it is infinite.
    """
    rows = conf.flatten(0, 1)
    is_class = torch.ones(rows.shape[1], device=conf.device)
    is_class[0] = 0.0
    odds = torch.empty(len(rows), device=conf.device)
    sizes = parts(rows, len(rows), 4 * rows.shape[1])
    power = torch.empty(sizes[0].stop if sizes else 0, rows.shape[1], device=conf.device)
    for part in sizes:
        scores, out = rows[part].float(), power[: part.stop - part.start]
        torch.mv(torch.sub(scores, scores[:, :1], out=out).exp_(), is_class, out=odds[part])
    return odds.view(conf.shape[:2])
