"""The network's output averaged over mirror images of the picture.

Where up and down or left and right mean nothing (cells, aerial pictures), the mirror images are as
good as the picture, and the average over them is steadier than each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ssd_dist.model.ssd import SSD

Mirror = Literal["none", "horizontal", "both"]

_VIEWS: dict[Mirror, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (0,)),
    "both": ((), (0,), (1,), (0, 1)),
}
"""The axes along which each view is turned: 0 is x, 1 is y."""


def num_views(mirror: Mirror) -> int:
    """How many mirror images of a picture the network meets, itself included."""
    return len(_VIEWS[mirror])


def averaged_output(
    model: SSD, images: Tensor, mirror: Mirror, orders: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) images → loc (B, P, 4) and class scores (B, P, C+1), in the picture's own view.

    Offsets are averaged as they are, class scores as probabilities; `softmax` of what is returned
    gives their mean. `horizontal` takes twice the network's time, `both` four times. `orders`, from
    :func:`mirrored_orders`, need not be found again.

    Raises ValueError if the model's priors are not their own mirror image (torchvision's SSD300).
    """
    if mirror == "none":
        loc, conf = model(images)
        return loc, conf
    orders = mirrored_orders(model, mirror) if orders is None else orders
    locs, probabilities = [], []
    for axes in _VIEWS[mirror]:
        view = images.flip([3 - axis for axis in axes]) if axes else images
        loc, conf = model(view.contiguous(memory_format=_layout(images)))
        for axis in axes:
            order = orders[axis]
            loc, conf = loc[:, order], conf[:, order]
            loc[..., axis] = -loc[..., axis]
        locs.append(loc)
        probabilities.append(conf.softmax(-1))
    return torch.stack(locs).mean(0), torch.stack(probabilities).mean(0).log()


def mirrored_orders(model: SSD, mirror: Mirror) -> dict[int, Tensor]:
    """For each axis along which `mirror` turns the picture: its :func:`mirrored_order`."""
    axes = sorted({axis for view in _VIEWS[mirror] for axis in view})
    return {axis: mirrored_order(model, axis) for axis in axes}


def mirrored_order(model: SSD, axis: int) -> Tensor:
    """(P,) int64: the prior that lies where prior p lies in the mirror image along `axis`."""
    parts, start = [], 0
    for (rows, columns), num_priors in zip(
        model.feature_sizes, model.num_priors_per_cell, strict=True
    ):
        cells = torch.arange(rows * columns * num_priors).view(rows, columns, num_priors)
        parts.append(cells.flip(1 - axis).flatten() + start)
        start += cells.numel()
    order = torch.cat(parts).to(model.priors_cxcywh.device)
    mirrored = model.priors_cxcywh[order]
    mirrored[:, axis] = 1 - mirrored[:, axis]
    if not torch.allclose(mirrored, model.priors_cxcywh, atol=1e-5):
        raise ValueError(
            "postprocess.mirror needs priors that are their own mirror image, which this model's "
            "are not: use none"
        )
    return order


def _layout(images: Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
