"""Depthwise convolutions of lazy maps."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from timm.layers import get_same_padding
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from ssd_dist.model.cpu.depthwise_kernels import kernels
from ssd_dist.model.cpu.lazy_maps import LazyMap
from ssd_dist.model.cpu.simd import WIDTH
from ssd_dist.model.folding import NormedConvolution, NormedConvolutionSame

_SAME = (Conv2dSame, NormedConvolutionSame)
"""These pad as TensorFlow does, by the size of the map."""


def is_depthwise(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is one that can be computed here."""
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer) in (nn.Conv2d, NormedConvolution, *_SAME)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.in_channels % WIDTH == 0
        and layer.kernel_size[0] == layer.kernel_size[1] > 1
        and layer.stride[0] == layer.stride[1]
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
        and layer.padding[0] == layer.padding[1] < layer.kernel_size[0]
    )


def output_size(layer: nn.Conv2d, height: int, width: int) -> tuple[int, int]:
    """Of a map of this size."""
    return _output_side(layer, height), _output_side(layer, width)


def _output_side(layer: nn.Conv2d, side: int) -> int:
    beyond = sum(_padding(layer, side)) - layer.kernel_size[0]
    return (side + beyond) // layer.stride[0] + 1


def _padding(layer: nn.Conv2d, side: int) -> tuple[int, int]:
    """Zeros before and behind so many cells."""
    if isinstance(layer, _SAME):
        both = get_same_padding(side, layer.kernel_size[0], layer.stride[0], 1)
        return both // 2, both - both // 2
    assert isinstance(layer.padding[0], int)
    return layer.padding[0], layer.padding[0]


def convolve(
    input: LazyMap, layer: nn.Conv2d, filters: NDArray[np.float32], *, take_moments: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """(B, H, W, C) and filters (C, 1, K, K) → (B, H', W', C) and its moments, see `norm_kernels`,
    if they are asked for.

    `layer`: stride and padding. Without its bias.
    """
    batch, height, width, channels = input.stored.shape
    output = np.empty((batch, *output_size(layer, height, width), channels), np.float32)
    moments = np.zeros((3, channels)) if take_moments else None
    kernels(layer.kernel_size[0], layer.stride[0]).convolve(
        _lines(input.stored),
        input.norm.lines,
        input.norm.activation,
        _by_tap(filters),
        *_above_and_left(layer, input),
        _lines(output),
        moments,
    )
    return output, moments


def backpropagate(
    input: LazyMap,
    layer: nn.Conv2d,
    filters: NDArray[np.float32],
    output: LazyMap,
    gradient: NDArray[np.float32],
    to_output: NDArray[np.float32],
    *,
    to_input: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """The gradients of the filters and of the input's values.

    Args:
        input: (B, H, W, C).
        layer: stride and padding.
        filters: (C, 1, K, K).
        output: (B, H', W', C), lazy.
        gradient: of the output's values.
        to_output: of which its norm makes the gradient of what is stored.
        to_input: computed along with the filters' in any case.

    Returns:
        (C, 1, K, K), (B, H, W, C), and what the input's norm needs of the latter, (2, C), see
        `LazyMap.sums`.
    """
    channels, _, size, _ = filters.shape
    by_tap = np.zeros(filters.size, np.float32)
    by_input = np.empty_like(input.stored)
    sums = np.zeros((2, channels))
    kernels(size, layer.stride[0]).backpropagate(
        _lines(input.stored),
        input.norm.lines,
        input.norm.activation,
        input.norm.mean,
        _by_tap(filters),
        *_above_and_left(layer, input),
        _lines(output.stored),
        output.norm.lines,
        output.norm.activation,
        to_output,
        _lines(gradient),
        by_tap,
        _lines(by_input),
        sums,
    )
    of_filters = by_tap.reshape(size, size, 1, channels).transpose(3, 2, 0, 1)
    return np.ascontiguousarray(of_filters), by_input, sums


def _above_and_left(layer: nn.Conv2d, input: LazyMap) -> tuple[int, int]:
    _, height, width, _ = input.stored.shape
    return _padding(layer, height)[0], _padding(layer, width)[0]


def _lines(map: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, H, W, C) → (B, H, W·C), a view."""
    return map.reshape(*map.shape[:2], -1)


def _by_tap(filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, 1, K, K) → (K·K·C)."""
    return filters.transpose(2, 3, 1, 0).reshape(-1)
