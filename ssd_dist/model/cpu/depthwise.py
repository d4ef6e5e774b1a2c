"""Depthwise convolutions of lazy maps."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ssd_dist.model.cpu.depthwise_kernels import kernels
from ssd_dist.model.cpu.lazy_maps import LazyMap
from ssd_dist.model.cpu.simd import WIDTH


def is_depthwise(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is one that can be computed here."""
    return (
        type(layer) is nn.Conv2d
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.in_channels % WIDTH == 0
        and layer.kernel_size[0] == layer.kernel_size[1] > 1
        and layer.stride[0] == layer.stride[1]
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
        and layer.padding[0] == layer.padding[1] < layer.kernel_size[0]
        and layer.bias is None
    )


def output_size(layer: nn.Conv2d, height: int, width: int) -> tuple[int, int]:
    """Of a map of this size."""
    assert isinstance(layer.padding[0], int)
    beyond = 2 * layer.padding[0] - layer.kernel_size[0]
    return (height + beyond) // layer.stride[0] + 1, (width + beyond) // layer.stride[0] + 1


def convolve(
    input: LazyMap, layer: nn.Conv2d, filters: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(B, H, W, C) and filters (C, 1, K, K) → (B, H', W', C) and its moments, see `norm_kernels`.

    `layer`: stride and padding.
    """
    batch, height, width, channels = input.stored.shape
    output = np.empty((batch, *output_size(layer, height, width), channels), np.float32)
    moments = np.zeros((3, channels))
    kernels(layer.kernel_size[0], layer.stride[0]).convolve(
        _lines(input.stored),
        input.norm.lines,
        input.norm.activation,
        _by_tap(filters),
        layer.padding[0],
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
        output: (B, H', W', C), with a norm.
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
        layer.padding[0],
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


def _lines(map: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, H, W, C) → (B, H, W·C), a view."""
    return map.reshape(*map.shape[:2], -1)


def _by_tap(filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, 1, K, K) → (K·K·C)."""
    return filters.transpose(2, 3, 1, 0).reshape(-1)
