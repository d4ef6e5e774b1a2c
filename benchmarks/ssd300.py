"""SSD300's 8,732 priors, and torchvision's own detector for them, without a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from ssd_dist.ops.priors import make_priors

SIDE = 300
_MAPS = (38, 19, 10, 5, 3, 1)
_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
_ASPECTS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
_STEPS = (8, 16, 32, 64, 100, 300)


def priors() -> Tensor:
    """(8732, 4) cxcywh, relative."""
    maps = [(cells, cells) for cells in _MAPS]
    return make_priors(maps, _SCALES, _ASPECTS, steps=_STEPS, image_size=SIDE)


class _NoBackbone(nn.Module):
    out_channels = (1,) * len(_MAPS)


def torchvision_ssd(num_outputs: int) -> SSD:
    """Torchvision's SSD300 with its defaults, of which only what follows the network is used."""
    anchors = DefaultBoxGenerator([list(a) for a in _ASPECTS], scales=_SCALES, steps=_STEPS)
    return SSD(_NoBackbone(), anchors, (SIDE, SIDE), num_outputs)


def random_objects(
    num_images: int, num_classes: int, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """3 to 15 objects an image with sides of 5 to 50 %, as torchvision takes them; relative."""
    targets = []
    for count in torch.randint(3, 16, (num_images,), generator=generator).tolist():
        sides = torch.rand(count, 2, generator=generator) * 0.45 + 0.05
        corner = torch.rand(count, 2, generator=generator) * (1 - sides)
        labels = torch.randint(1, num_classes + 1, (count,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + sides], 1), "labels": labels})
    return targets
