"""Priors (default boxes) of an SSD: their sizes (SSD paper, section 2.2) and their places.

Order of the P priors: map by map, within a map row by row and cell by cell, within a cell the
square of size s_k, the square of size sqrt(s_k s_{k+1}), then every aspect ratio and its inverse.
It is the order of torchvision's `DefaultBoxGenerator`, and that of the heads' channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def evenly_spaced_scales(num_maps: int, min_scale: float, max_scale: float) -> tuple[float, ...]:
    """Prior sizes s_k = min + (max - min) (k - 1) / (m - 1) of m maps (SSD paper, Eq. 4).

    One value more than there are maps: the last, at least 1, is only used for the in-between square
    of the last map. A single map takes `min_scale`. Raises ValueError where the sizes do not grow.
    """
    if num_maps < 1 or not 0 < min_scale < max_scale:
        raise ValueError(
            f"prior sizes need at least one map and 0 < min_scale < max_scale, "
            f"not {num_maps} maps from {min_scale} to {max_scale}"
        )
    if num_maps == 1:
        return min_scale, max_scale
    span = max_scale - min_scale
    scales = [min_scale + span * k / (num_maps - 1) for k in range(num_maps)]
    return (*scales, max(1.0, max_scale))


def num_priors_per_cell(aspect_ratios: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Priors of one cell of each map: two squares, and two for every aspect ratio beside 1.

    Raises ValueError for an aspect ratio that would repeat a prior.
    """
    for k, ratios in enumerate(aspect_ratios):
        distinct = {round(max(ratio, 1 / ratio), 6) for ratio in ratios}
        if len(distinct) < len(ratios) or 1.0 in distinct:
            raise ValueError(
                f"aspect ratios {tuple(ratios)} of map {k} repeat a prior: leave out 1 and "
                "inverses, which are always there"
            )
    return tuple(2 + 2 * len(ratios) for ratios in aspect_ratios)


def make_priors(
    feature_sizes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    *,
    steps: Sequence[int] | None = None,
    image_size: int | None = None,
    clip: bool = True,
) -> Tensor:
    """The priors of all maps: (P, 4) float32, cxcywh, relative to the image side.

    Args:
        feature_sizes: (rows, columns) of each of the m maps.
        scales: m prior sizes relative to the image side, or m + 1 with the one that follows the
            last map's; left out, that is the greater of 1 and the last.
        aspect_ratios: of each map, beside 1; each stands for itself and its inverse.
        steps: distance of neighbouring centres in pixels, for each map; with `image_size` in
            pixels. Without them the centres divide the image evenly.
        clip: limit widths and heights to the image side; centres are never moved.

    Raises ValueError where lengths do not fit or a size is not positive.
    """
    num_maps = len(feature_sizes)
    if len(scales) not in (num_maps, num_maps + 1):
        raise ValueError(
            f"{num_maps} feature maps ({_cells(feature_sizes)} cells) need {num_maps} prior "
            f"sizes, or {num_maps + 1} with the one after the last map's; "
            f"got {len(scales)}: {tuple(scales)}"
        )
    if len(aspect_ratios) != num_maps:
        raise ValueError(
            f"{num_maps} feature maps need {num_maps} lists of aspect ratios, "
            f"not {len(aspect_ratios)}"
        )
    if min(scales) <= 0:
        raise ValueError(f"prior sizes must be above 0, not {tuple(scales)}")
    if (steps is None) != (image_size is None) or (steps is not None and len(steps) != num_maps):
        raise ValueError("steps, one for each feature map, and image_size go together")
    num_priors_per_cell(aspect_ratios)

    sizes = [*scales, max(1.0, scales[-1])]
    priors = []
    for k, (num_rows, num_columns) in enumerate(feature_sizes):
        cells_high: float = num_rows
        cells_wide: float = num_columns
        if steps is not None and image_size is not None:
            cells_high = cells_wide = image_size / steps[k]
        cy = (torch.arange(num_rows) + 0.5) / cells_high
        cx = (torch.arange(num_columns) + 0.5) / cells_wide
        wh = _widths_heights(sizes[k], sizes[k + 1], aspect_ratios[k])
        if clip:
            wh = wh.clamp(max=1)
        shape = (num_rows, num_columns, len(wh))
        priors.append(
            torch.stack(
                (
                    cx[None, :, None].expand(shape),
                    cy[:, None, None].expand(shape),
                    wh[:, 0].expand(shape),
                    wh[:, 1].expand(shape),
                ),
                dim=-1,
            ).reshape(-1, 4)
        )
    return torch.cat(priors)


def _widths_heights(size: float, next_size: float, ratios: Sequence[float]) -> Tensor:
    """Widths and heights of one cell's priors: (2 + 2 ratios, 2) float32."""
    between = math.sqrt(size * next_size)
    pairs = [(size, size), (between, between)]
    for ratio in ratios:
        long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
        pairs += [(long, short), (short, long)]
    return torch.tensor(pairs, dtype=torch.float32)


def _cells(feature_sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{rows}x{columns}" for rows, columns in feature_sizes)
