"""SSD and SSDLite heads: torchvision's modules, our initialisation, a forward with fewer copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead

Head: TypeAlias = SSDHead | SSDLiteHead


def build_head(
    lite: bool,
    in_channels: Sequence[int],
    num_priors_per_cell: Sequence[int],
    num_classes: int,
    norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
) -> Head:
    """A classification and a regression head for each feature map.

    Args:
        lite: depthwise-separable 3x3 convolutions with batch norm (SSDLite) or plain ones (SSD).
        in_channels: channels of each map.
        num_priors_per_cell: priors of a cell of each map.
        num_classes: C, background not counted; the heads give C + 1 scores.
        norm_layer: makes SSDLite's batch norms, of their number of channels.
    """
    if lite:
        return SSDLiteHead(
            list(in_channels), list(num_priors_per_cell), num_classes + 1, norm_layer
        )
    return SSDHead(list(in_channels), list(num_priors_per_cell), num_classes + 1)


def initialise_head(head: Head, num_classes: int, object_probability: float) -> None:
    """Scores that say "background" and offsets near zero, before the first step.

    The weights that give scores and offsets are drawn from N(0, 0.01²), offsets have no bias, and
    the background's bias is b = log(C (1 - p) / p), so that softmax gives the C classes together
    the probability p = `object_probability` (the prior of RetinaNet, section 3.3, for a softmax).
    With p = 1/2 and more, as without this, thousands of background priors make the first steps.
    """
    background = math.log(num_classes * (1 - object_probability) / object_probability)
    for branch in (head.classification_head, head.regression_head):
        for predictor in branch.module_list:
            *depthwise, last = [m for m in predictor.modules() if isinstance(m, nn.Conv2d)]
            for convolution in depthwise:
                # Keeps the signal's size also where no batch statistics follow (frozen, none).
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert last.bias is not None
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
            if branch is head.classification_head:
                with torch.no_grad():
                    last.bias.view(-1, num_classes + 1)[:, 0] = background


def predict(predictors: nn.ModuleList, maps: Sequence[Tensor], num_columns: int) -> Tensor:
    """The outputs of one head on all maps, prior by prior: (B, P, num_columns).

    The channel of column k of a cell's prior a is a * num_columns + k, so moving the channels last
    puts all values in order; where memory is channels_last already, nothing is copied but for the
    concatenation.
    """
    outputs = [
        predictor(features).permute(0, 2, 3, 1).reshape(features.shape[0], -1, num_columns)
        for predictor, features in zip(predictors, maps, strict=True)
    ]
    return torch.cat(outputs, dim=1)
