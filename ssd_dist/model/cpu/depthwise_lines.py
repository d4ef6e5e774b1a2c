"""What depthwise_kernels does to a line of a map; compiled by numba.

Lines lie in memory as the filters meet them: with the padding at both ends, and so that the cells
which one tap meets one after the other are side by side, with a stride of two the even ones and the
odd ones. A tap at column j then begins at `j % stride * apart + j // stride`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled
from ssd_dist.model.cpu.norm_kernels import Activation
from ssd_dist.model.cpu.simd import WIDTH, add, if_less, load, spread, store, times, times_plus

_ZERO, _HALF, _ONE = map(np.float32, (0, 0.5, 1))
_SIXTH, _THIRD, _THREE = np.float32(1 / 6), np.float32(1 / 3), np.float32(3)


@compiled
def _activated(z: Any, activation: Activation) -> Any:
    low, high, hard_swish = activation
    if hard_swish:
        zero, one = spread(_ZERO), spread(_ONE)
        gate = times_plus(z, spread(_SIXTH), spread(_HALF))
        gate = if_less(gate, zero, zero, gate)
        return times(z, if_less(one, gate, one, gate))
    lowest, highest = spread(low), spread(high)
    z = if_less(z, lowest, lowest, z)
    return if_less(highest, z, highest, z)


@compiled
def _times_slope(gradient: Any, z: Any, activation: Activation) -> Any:
    """`gradient` times the activation's slope at z."""
    low, high, hard_swish = activation
    zero = spread(_ZERO)
    if hard_swish:
        one, three = spread(_ONE), spread(_THREE)
        slope = times_plus(z, spread(_THIRD), spread(_HALF))
        slope = if_less(z, spread(-_THREE), zero, slope)
        return times(gradient, if_less(three, z, one, slope))
    inside = if_less(z, spread(high), gradient, zero)
    return if_less(spread(low), z, inside, zero)


@compiled
def activate_line(
    line: NDArray[np.float32],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    activation: Activation,
    stride: int,
    left: int,
    activated: NDArray[np.float32],
) -> None:
    """Writes a line's activations where the filters meet them."""
    channels = len(scale)
    apart = len(activated) // (stride * channels)
    for parity in range(stride):
        first = (parity - left) % stride
        to = (parity * apart + (first + left) // stride) * channels
        for x in range(first * channels, len(line), stride * channels):
            for c in range(0, channels, WIDTH):
                z = times_plus(load(line, x + c), load(scale, c), load(shift, c))
                store(activated, to + c, _activated(z, activation))
            to += channels


@compiled
def output_cell(
    size: int,
    stride: int,
    below: NDArray[np.float32],
    begins: NDArray[np.int64],
    filters: NDArray[np.float32],
    channels: int,
    c: int,
    x: int,
) -> Any:
    """A convolution's output at `x`, counted in values of the line, of channel `c` and those after
    it. `begins`: of the K activated lines in `below`, of which the last is of padding."""
    apart = len(below) // ((size + 1) * stride * channels)
    total = spread(_ZERO)
    for i in range(size):
        for j in range(size):
            at = begins[i] + x + (j % stride * apart + j // stride) * channels
            tap = load(filters, (i * size + j) * channels + c)
            total = times_plus(load(below, at), tap, total)
    return total


@compiled
def gradient_line(
    line: NDArray[np.float32],
    gradient: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    to_input: NDArray[np.float32],
    margin: int,
    output: NDArray[np.float32],
) -> None:
    """Writes the gradient of a line of a norm's input, see `norm_kernels.input_gradients`, behind
    `margin` values."""
    scale, shift, times_line, alone = lines[0], lines[1], to_input[0], to_input[1]
    channels = len(scale)
    for first in range(0, len(line), channels):
        for c in range(0, channels, WIDTH):
            y = load(line, first + c)
            z = times_plus(y, load(scale, c), load(shift, c))
            before = _times_slope(load(gradient, first + c), z, activation)
            rest = times_plus(load(times_line, c), y, load(alone, c))
            store(output, margin + first + c, times_plus(load(scale, c), before, rest))


@compiled
def flush_line(
    by_input: NDArray[np.float32],
    line: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    mean: NDArray[np.float32],
    stride: int,
    left: int,
    output: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Writes a line of the gradient of the activations, as it lies where filters meet it, and adds
    to `sums` (2, C) what the norm before them needs, see `norm_kernels.add_gradient_sums`."""
    scale, shift = lines[0], lines[1]
    channels = len(scale)
    apart = len(by_input) // (stride * channels)
    part = np.empty(WIDTH, np.float32)
    part_from_mean = np.empty(WIDTH, np.float32)
    for c in range(0, channels, WIDTH):
        total, total_from_mean = spread(_ZERO), spread(_ZERO)
        factor, summand = load(scale, c), load(shift, c)
        minus_mean = times(load(mean, c), spread(-_ONE))
        for parity in range(stride):
            first = (parity - left) % stride
            at = (parity * apart + (first + left) // stride) * channels + c
            for x in range(first * channels + c, len(line), stride * channels):
                gradient, y = load(by_input, at), load(line, x)
                store(output, x, gradient)
                before = _times_slope(gradient, times_plus(y, factor, summand), activation)
                total = add(total, before)
                total_from_mean = times_plus(before, add(y, minus_mean), total_from_mean)
                at += channels
        store(part, 0, total)
        store(part_from_mean, 0, total_from_mean)
        for i in range(WIDTH):
            sums[0, c + i] += part[i]
            sums[1, c + i] += part_from_mean[i]


@compiled
def add_shifted_moments(
    cells: int,
    pivot: NDArray[np.float32],
    totals: NDArray[np.float32],
    squares: NDArray[np.float32],
    moments: NDArray[np.float64],
) -> None:
    """Adds to `moments`, see `norm_kernels.add_moments`, so many cells, of which the sums less
    `pivot` and the squares of that are given; leaves these at zero."""
    before = moments[0, 0]
    both = before + cells
    for c in range(len(pivot)):
        mean = totals[c] / np.float64(cells)
        about_mean = max(0.0, squares[c] - totals[c] * mean)
        apart = pivot[c] + mean - moments[1, c]
        moments[0, c] = both
        moments[1, c] += apart * (cells / both)
        moments[2, c] += about_mean + apart * apart * (before * (cells / both))
        totals[c], squares[c] = 0, 0
