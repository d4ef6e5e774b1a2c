"""1 x 1 convolutions of lazy maps."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ssd_dist.model.cpu import product_kernels
from ssd_dist.model.cpu.lazy_maps import LazyMap
from ssd_dist.model.cpu.matrix_products import SGEMM
from ssd_dist.model.folding import NormedConvolution


def is_product(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a plain 1 x 1 convolution, the product of the cells' channels and filters."""
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer) in (nn.Conv2d, NormedConvolution)
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.padding in ((0, 0), "valid", "same")
        and layer.groups == 1
    )


def convolve(
    input: LazyMap, layer: nn.Conv2d, filters: NDArray[np.float32], *, take_moments: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """(B, H, W, N) and filters (C, N, 1, 1) → (B, H, W, C) and its moments, see `norm_kernels`, if
    they are asked for.

    `layer` has nothing to say here. Without its bias.
    """
    output = LazyMap(np.empty((*input.stored.shape[:3], len(filters)), np.float32))
    moments = np.zeros((3, output.columns)) if take_moments else None
    product_kernels.convolve(
        SGEMM,
        _parts(input, input, input.stored),
        input.is_lazy,
        input.lines,
        input.norm.activation,
        _factors(input),
        filters[:, :, 0, 0],
        _parts(input, output, output.stored),
        moments,
    )
    return output.stored, moments


def backpropagate(
    input: LazyMap,
    layer: nn.Conv2d,
    filters: NDArray[np.float32],
    output: LazyMap,
    gradient: NDArray[np.float32],
    to_output: NDArray[np.float32] | None,
    *,
    to_input: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float64] | None]:
    """The gradients of the filters, and of the input's values `to_input`.

    Args:
        input: (B, H, W, N).
        layer: has nothing to say here.
        filters: (C, N, 1, 1).
        output: (B, H, W, C).
        gradient: of the output's values.
        to_output: of which its norm makes the gradient of what is stored; None if it has no norm.
        to_input: whether it is asked for.

    Returns:
        (C, N, 1, 1), (B, H, W, N), and what the input's norm needs of the latter, see
        `LazyMap.sums`; None where there is nothing of it.
    """
    of_filters = np.zeros(filters.shape[:2], np.float32)
    by_input = np.empty_like(input.stored) if to_input else None
    sums = np.zeros((2, input.columns))
    product_kernels.backpropagate(
        SGEMM,
        _parts(input, input, input.stored),
        input.is_lazy,
        input.lines,
        input.norm.activation,
        _factors(input),
        input.mean,
        filters[:, :, 0, 0],
        _parts(input, output, output.stored),
        output.is_lazy,
        output.lines,
        output.norm.activation,
        output.lines if to_output is None else output.wide(to_output),
        _parts(input, output, gradient),
        of_filters,
        to_input,
        _parts(input, input, input.stored if by_input is None else by_input),
        sums,
    )
    has_sums = to_input and input.is_lazy and input.factors is None
    return of_filters[..., None, None], by_input, sums if has_sums else None


def _parts(input: LazyMap, like: LazyMap, map: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of each picture of a map of the shape of `like`, (B, R, L), or where the input has
    no gate of all of them as one, (1, B·R, L): a view."""
    return map.reshape(1 if input.factors is None else input.batch, -1, like.columns)


def _factors(input: LazyMap) -> NDArray[np.float32]:
    """(B, L), or (1, 0)."""
    return np.empty((1, 0), np.float32) if input.factors is None else input.wide(input.factors)
