"""Depthwise convolutions of a map that is normalised and activated on the way; compiled by numba.

Neither the activations nor the gradient of what the convolution gives are ever whole: both are made
line by line, of values that come from memory once. A map is (B, H, W·C) float32, the channels of a
line's cells one after the other; C is a multiple of `simd.WIDTH`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled
from ssd_dist.model.cpu.depthwise_lines import (
    activate_line,
    add_shifted_moments,
    flush_line,
    gradient_line,
    output_cell,
)
from ssd_dist.model.cpu.norm_kernels import Activation
from ssd_dist.model.cpu.simd import WIDTH, add, load, spread, store, times, times_plus

_ZERO, _ONE = np.float32(0), np.float32(1)
_VALUES = 16_384
"""Of the lines whose moments are taken at once; see `norm_kernels`."""


class Kernels(NamedTuple):
    """For filters of one size and stride."""

    convolve: Callable[..., None]
    backpropagate: Callable[..., None]


@cache
def kernels(size: int, stride: int) -> Kernels:
    """Compiled for K = `size` and `stride`, so that loops over taps are not loops any more.

    They refer to these numbers and to nothing else of this function's: a function compiled in here
    would be another one in each process, and what calls it never found on disk.
    """
    taps = size * size

    @compiled
    def convolve(
        map: NDArray[np.float32],
        lines: NDArray[np.float32],
        activation: Activation,
        filters: NDArray[np.float32],
        above: int,
        left: int,
        output: NDArray[np.float32],
        moments: NDArray[np.float64] | None,
    ) -> None:
        """The convolution of the activations of a scaled and shifted map.

        Args:
            map: (B, H, W·C).
            lines: (2, C), scale and shift.
            activation: of what is scaled and shifted.
            filters: (K·K·C), tap by tap; those of line i and column j are the i·K + j-th C.
            above: lines of zeros before the first; behind the last, as many as it takes.
            left: zeros before a line's first cell, likewise.
            output: (B, H', W'·C), written.
            moments: (3, C) of all outputs, added to; see `norm_kernels.add_moments`. None where
                they are not asked for: compiled without them.
        """
        batch, height, in_line = map.shape
        _, out_height, out_in_line = output.shape
        channels = lines.shape[1]
        width, out_width = in_line // channels, out_in_line // channels
        scale, shift = lines[0], lines[1]
        apart = max(out_width + (size - 1) // stride, (left + width - 1) // stride + 1)
        # The last is of zeros: a line above or below the map.
        length = stride * apart * channels
        below = np.zeros((size + 1) * length, np.float32)
        held = np.empty(size, np.int64)
        begins = np.empty(size, np.int64)
        # Moments are taken about a value of each channel, of some lines at a time.
        at_once = max(1, _VALUES // out_in_line)
        pivot = np.empty(channels, np.float32)
        totals, squares = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        four = out_width // 4 * 4
        for picture in range(batch):
            held[:] = -1
            for line in range(out_height):
                for i in range(size):
                    y = line * stride + i - above
                    slot = y % size
                    if y < 0 or y >= height:
                        slot = size
                    elif held[slot] != y:
                        held[slot] = y
                        to = below[slot * length : (slot + 1) * length]
                        activate_line(map[picture, y], scale, shift, activation, stride, left, to)
                    begins[i] = slot * length
                is_first, is_last = line % at_once == 0, line + 1 == out_height
                out = output[picture, line]
                for c in range(0, channels, WIDTH):
                    if moments is not None and is_first:
                        at_first = output_cell(size, stride, below, begins, filters, channels, c, c)
                        store(pivot, c, at_first)
                    minus_pivot = times(load(pivot, c), spread(-_ONE))
                    total, square = load(totals, c), load(squares, c)
                    # Four cells at a time: a tap is read for all of them.
                    for x in range(c, four * channels, 4 * channels):
                        one, two = spread(_ZERO), spread(_ZERO)
                        three, more = spread(_ZERO), spread(_ZERO)
                        for i in range(size):
                            for j in range(size):
                                tap = load(filters, (i * size + j) * channels + c)
                                at = begins[i] + x
                                at += (j % stride * apart + j // stride) * channels
                                one = times_plus(load(below, at), tap, one)
                                two = times_plus(load(below, at + channels), tap, two)
                                three = times_plus(load(below, at + 2 * channels), tap, three)
                                more = times_plus(load(below, at + 3 * channels), tap, more)
                        store(out, x, one)
                        store(out, x + channels, two)
                        store(out, x + 2 * channels, three)
                        store(out, x + 3 * channels, more)
                        if moments is not None:
                            one, two = add(one, minus_pivot), add(two, minus_pivot)
                            three, more = add(three, minus_pivot), add(more, minus_pivot)
                            total = add(total, add(add(one, two), add(three, more)))
                            square = times_plus(one, one, times_plus(two, two, square))
                            square = times_plus(three, three, times_plus(more, more, square))
                    for x in range(c + four * channels, out_in_line, channels):
                        one = output_cell(size, stride, below, begins, filters, channels, c, x)
                        store(out, x, one)
                        if moments is not None:
                            one = add(one, minus_pivot)
                            total, square = add(total, one), times_plus(one, one, square)
                    store(totals, c, total)
                    store(squares, c, square)
                # By itself, so that numba sees that there is nothing to compile for None.
                if moments is not None:  # noqa: SIM102
                    if is_last or (line + 1) % at_once == 0:
                        cells = (line % at_once + 1) * out_width
                        add_shifted_moments(cells, pivot, totals, squares, moments)

    @compiled
    def backpropagate(
        map: NDArray[np.float32],
        lines: NDArray[np.float32],
        activation: Activation,
        mean: NDArray[np.float32],
        filters: NDArray[np.float32],
        above: int,
        left: int,
        output: NDArray[np.float32],
        output_lines: NDArray[np.float32],
        output_activation: Activation,
        to_output: NDArray[np.float32],
        gradients: NDArray[np.float32],
        by_tap: NDArray[np.float32],
        by_input: NDArray[np.float32],
        sums: NDArray[np.float64],
    ) -> None:
        """Its gradients, of a norm and an activation behind it too.

        Args:
            map: as in `convolve`, and so are lines, activation, filters, above and left.
            mean: (C), of the map.
            output: (B, H', W'·C), of the convolution.
            output_lines: (2, C), scale and shift of the output; with `output_activation` and
                `to_output` (2, C), see `norm_kernels.input_gradients`.
            gradients: (B, H', W'·C), of the activated output.
            by_tap: (K·K·C), added to: the filters' gradient.
            by_input: (B, H, W·C), written: the gradient of the map's activations.
            sums: (2, C), added to; see `norm_kernels.add_gradient_sums`.
        """
        batch, height, in_line = map.shape
        _, out_height, out_in_line = output.shape
        channels = lines.shape[1]
        width, out_width = in_line // channels, out_in_line // channels
        scale, shift = lines[0], lines[1]
        apart = max(out_width + (size - 1) // stride, (left + width - 1) // stride + 1)
        length = stride * apart * channels
        below = np.zeros(size * length, np.float32)
        to_below = np.zeros(size * length, np.float32)
        # With zeros on both sides, for taps that reach beyond it.
        margin = (size - 1) // stride * channels
        gradient = np.zeros(out_in_line + 2 * margin, np.float32)
        held = np.empty(size, np.int64)
        part = np.empty(taps * channels, np.float32)
        for picture in range(batch):
            held[:] = -1
            part[:] = 0
            flushed = 0
            for line in range(out_height):
                gradient_line(
                    output[picture, line],
                    gradients[picture, line],
                    output_lines,
                    output_activation,
                    to_output,
                    margin,
                    gradient,
                )
                for i in range(size):
                    y = line * stride + i - above
                    if y < 0 or y >= height:
                        continue
                    begin = y % size * length
                    if held[y % size] != y:
                        held[y % size] = y
                        to = below[begin : begin + length]
                        activate_line(map[picture, y], scale, shift, activation, stride, left, to)
                    for c in range(0, channels, WIDTH):
                        for j in range(size):
                            # Four sums: each has to wait for its last product.
                            one, two = spread(_ZERO), spread(_ZERO)
                            three, four = spread(_ZERO), spread(_ZERO)
                            at = begin + (j % stride * apart + j // stride) * channels + c
                            to_cell = margin + c
                            for _ in range(out_width // 4):
                                one = times_plus(load(gradient, to_cell), load(below, at), one)
                                at, to_cell = at + channels, to_cell + channels
                                two = times_plus(load(gradient, to_cell), load(below, at), two)
                                at, to_cell = at + channels, to_cell + channels
                                three = times_plus(load(gradient, to_cell), load(below, at), three)
                                at, to_cell = at + channels, to_cell + channels
                                four = times_plus(load(gradient, to_cell), load(below, at), four)
                                at, to_cell = at + channels, to_cell + channels
                            for _ in range(out_width % 4):
                                one = times_plus(load(gradient, to_cell), load(below, at), one)
                                at, to_cell = at + channels, to_cell + channels
                            tap = (i * size + j) * channels + c
                            total = add(add(one, two), add(three, four))
                            store(part, tap, add(load(part, tap), total))
                        for parity in range(stride):
                            met = (size - parity + stride - 1) // stride
                            at = begin + parity * apart * channels + c
                            to_cell = margin + c
                            for _ in range((out_width + met - 1) // 4):
                                one, two = load(to_below, at), load(to_below, at + channels)
                                three = load(to_below, at + 2 * channels)
                                four = load(to_below, at + 3 * channels)
                                for t in range(met):
                                    tap = (i * size + parity + t * stride) * channels + c
                                    factor, cell = load(filters, tap), to_cell - t * channels
                                    one = times_plus(load(gradient, cell), factor, one)
                                    cell += channels
                                    two = times_plus(load(gradient, cell), factor, two)
                                    cell += channels
                                    three = times_plus(load(gradient, cell), factor, three)
                                    cell += channels
                                    four = times_plus(load(gradient, cell), factor, four)
                                store(to_below, at, one)
                                store(to_below, at + channels, two)
                                store(to_below, at + 2 * channels, three)
                                store(to_below, at + 3 * channels, four)
                                at, to_cell = at + 4 * channels, to_cell + 4 * channels
                            for _ in range((out_width + met - 1) % 4):
                                one = load(to_below, at)
                                for t in range(met):
                                    tap = (i * size + parity + t * stride) * channels + c
                                    cell = to_cell - t * channels
                                    one = times_plus(load(gradient, cell), load(filters, tap), one)
                                store(to_below, at, one)
                                at, to_cell = at + channels, to_cell + channels
                # No filter meets the lines above the next one's first any more.
                end = height
                if line + 1 < out_height:
                    end = min(height, max(0, (line + 1) * stride - above))
                for y in range(flushed, end):
                    begin = y % size * length
                    line_below = to_below[begin : begin + length]
                    if held[y % size] != y:
                        line_below[:] = 0
                    flush_line(
                        line_below,
                        map[picture, y],
                        lines,
                        activation,
                        mean,
                        stride,
                        left,
                        by_input[picture, y],
                        sums,
                    )
                    line_below[:] = 0
                flushed = end
            by_tap += part

    return Kernels(convolve, backpropagate)
