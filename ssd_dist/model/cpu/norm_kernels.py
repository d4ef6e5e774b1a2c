"""Batch normalisation with the activation behind it, in two passes each way; compiled by numba.

Maps lie with their channels last, as rows: (R, L) float32, where a row is one cell's channels or
those of several cells, so that short rows fill a processor's vectors. A line is (L,): a value for
each column. Sums run in float32 over a block of rows and in float64 over the blocks.

NaN passes through all of them, as through PyTorch's: comparisons are written so that it does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled

_ZERO, _HALF, _ONE, _THREE = map(np.float32, (0, 0.5, 1, 3))
_SIXTH, _THIRD = np.float32(1 / 6), np.float32(1 / 3)
_COLUMNS = 256
"""A row has so many where its map can be cut that way."""
_BLOCK = 16_384
"""Values of a block: half of a core's nearest cache."""


class Activation(NamedTuple):
    """min(max(z, low), high), or z · min(max(z + 3, 0), 6) / 6."""

    low: np.float32 = np.float32(-np.inf)
    high: np.float32 = np.float32(np.inf)
    hard_swish: bool = False


def cells_in_a_row(num_cells: int, channels: int) -> int:
    """How many cells make a row; they divide the map's cells."""
    cells = 1
    while cells * channels < _COLUMNS and num_cells % (2 * cells) == 0:
        cells *= 2
    return cells


@compiled
def add_moments(rows: NDArray[np.float32], moments: NDArray[np.float64]) -> None:
    """Adds rows to those before them, whose moments (3, L) are their number, in every column, their
    mean and the sum of the squares about it. Chan, Golub and LeVeque 1979."""
    num_rows, columns = rows.shape
    block = max(8, _BLOCK // columns)
    means = np.empty(columns, np.float32)
    squares = np.empty(columns, np.float32)
    for first in range(0, num_rows, block):
        end = min(num_rows, first + block)
        for c in range(columns):
            means[c] = 0
            squares[c] = 0
        for r in range(first, end):
            row = rows[r]
            for c in range(columns):
                means[c] += row[c]
        part = np.float32(1) / np.float32(end - first)
        for c in range(columns):
            means[c] *= part
        for r in range(first, end):
            row = rows[r]
            for c in range(columns):
                from_mean = row[c] - means[c]
                squares[c] += from_mean * from_mean
        before = moments[0, 0]
        both = before + (end - first)
        for c in range(columns):
            apart = means[c] - moments[1, c]
            moments[0, c] = both
            moments[1, c] += apart * ((end - first) / both)
            moments[2, c] += squares[c] + apart * apart * (before * ((end - first) / both))


@compiled
def settle(
    moments: NDArray[np.float64],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    eps: float,
    momentum: float,
    running_mean: NDArray[np.float32],
    running_var: NDArray[np.float32],
    statistics: NDArray[np.float64],
    lines: NDArray[np.float32],
) -> None:
    """From all rows' moments the statistics of C channels and what they make of a value.

    Args:
        moments: (3, L), see `add_moments`.
        weight: (C), γ.
        bias: (C), β.
        eps: added to the variance.
        momentum: part of the running statistics (C) that this batch's replace, in place.
        running_mean: (C).
        running_var: (C), unbiased.
        statistics: (3, C), written: mean, 1 / sqrt(variance + eps), number of values.
        lines: (2, C), written: scale and shift of x: γ · (x - mean) / sqrt(variance + eps) + β.
    """
    columns, channels = moments.shape[1], len(weight)
    cells = columns // channels
    num_rows = moments[0, 0]
    count = num_rows * cells
    for c in range(channels):
        mean = 0.0
        for i in range(c, columns, channels):
            mean += moments[1, i] / cells
        squares = 0.0
        for i in range(c, columns, channels):
            apart = moments[1, i] - mean
            squares += moments[2, i] + num_rows * apart * apart
        deviations = 1 / np.sqrt(squares / count + eps)
        statistics[0, c], statistics[1, c], statistics[2, c] = mean, deviations, count
        running_mean[c] += momentum * (mean - running_mean[c])
        running_var[c] += momentum * (squares / (count - 1) - running_var[c])
        lines[0, c] = weight[c] * deviations
        lines[1, c] = bias[c] - mean * (weight[c] * deviations)


@compiled
def activate(
    rows: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    output: NDArray[np.float32],
) -> None:
    """Writes the activation of `rows` scaled and shifted by `lines` (2, L) to `output` (R, L)."""
    num_rows, columns = rows.shape
    scale, shift = lines[0], lines[1]
    low, high, hard_swish = activation
    if hard_swish:
        for r in range(num_rows):
            row, out = rows[r], output[r]
            for c in range(columns):
                z = scale[c] * row[c] + shift[c]
                gate = z * _SIXTH + _HALF
                gate = _ZERO if gate < _ZERO else gate
                gate = _ONE if gate > _ONE else gate
                out[c] = z * gate
    else:
        for r in range(num_rows):
            row, out = rows[r], output[r]
            for c in range(columns):
                z = scale[c] * row[c] + shift[c]
                z = low if z < low else z
                out[c] = high if z > high else z


@compiled
def add_gradient_sums(
    rows: NDArray[np.float32],
    gradients: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    mean: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """The first pass of backpropagation: what needs a sum over all rows.

    Args:
        rows: (R, L), the norm's input.
        gradients: (R, L), of the activation's output.
        lines: (2, L), scale and shift, see `settle`.
        activation: between them.
        mean: (L), of the norm's input.
        sums: (2, L), added to: the gradients of what is activated, by themselves and times the
            norm's input less its mean.
    """
    num_rows, columns = rows.shape
    block = max(8, _BLOCK // columns)
    scale, shift = lines[0], lines[1]
    low, high, hard_swish = activation
    part, part_from_mean = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for first in range(0, num_rows, block):
        end = min(num_rows, first + block)
        for c in range(columns):
            part[c] = 0
            part_from_mean[c] = 0
        if hard_swish:
            for r in range(first, end):
                row, gradient = rows[r], gradients[r]
                for c in range(columns):
                    z = scale[c] * row[c] + shift[c]
                    slope = z * _THIRD + _HALF
                    slope = _ZERO if z < -_THREE else slope
                    slope = _ONE if z > _THREE else slope
                    before = gradient[c] * slope
                    part[c] += before
                    part_from_mean[c] += before * (row[c] - mean[c])
        else:
            for r in range(first, end):
                row, gradient = rows[r], gradients[r]
                for c in range(columns):
                    z = scale[c] * row[c] + shift[c]
                    before = gradient[c] if (z > low) & (z < high) else _ZERO
                    part[c] += before
                    part_from_mean[c] += before * (row[c] - mean[c])
        for c in range(columns):
            sums[0, c] += part[c]
            sums[1, c] += part_from_mean[c]


@compiled
def settle_gradients(
    sums: NDArray[np.float64],
    lines: NDArray[np.float32],
    statistics: NDArray[np.float64],
    of_parameters: NDArray[np.float32],
    to_input: NDArray[np.float32],
) -> None:
    """From all rows' sums the gradients of C channels.

    Args:
        sums: (2, L), see `add_gradient_sums`.
        lines: (2, C), from `settle`.
        statistics: (3, C), from `settle`.
        of_parameters: (2, C), written: the gradients of γ and β.
        to_input: (2, C), written: what `input_gradients` adds, times x and by itself.
    """
    columns, channels = sums.shape[1], statistics.shape[1]
    for c in range(channels):
        total, total_from_mean = 0.0, 0.0
        for i in range(c, columns, channels):
            total += sums[0, i]
            total_from_mean += sums[1, i]
        mean, deviations, count = statistics[0, c], statistics[1, c], statistics[2, c]
        of_parameters[0, c] = total_from_mean * deviations
        of_parameters[1, c] = total
        times_input = -lines[0, c] * deviations * deviations * total_from_mean / count
        to_input[0, c] = times_input
        to_input[1, c] = -lines[0, c] * total / count - times_input * mean


@compiled
def input_gradients(
    rows: NDArray[np.float32],
    gradients: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    to_input: NDArray[np.float32],
    output: NDArray[np.float32],
) -> None:
    """The second pass: writes the gradients of `rows` to `output` (R, L); `to_input` is (2, L), see
    `settle_gradients`, the rest as in `add_gradient_sums`."""
    num_rows, columns = rows.shape
    scale, shift = lines[0], lines[1]
    times_input, alone = to_input[0], to_input[1]
    low, high, hard_swish = activation
    if hard_swish:
        for r in range(num_rows):
            row, gradient, out = rows[r], gradients[r], output[r]
            for c in range(columns):
                z = scale[c] * row[c] + shift[c]
                slope = z * _THIRD + _HALF
                slope = _ZERO if z < -_THREE else slope
                slope = _ONE if z > _THREE else slope
                out[c] = scale[c] * (gradient[c] * slope) + times_input[c] * row[c] + alone[c]
    else:
        for r in range(num_rows):
            row, gradient, out = rows[r], gradients[r], output[r]
            for c in range(columns):
                z = scale[c] * row[c] + shift[c]
                before = gradient[c] if (z > low) & (z < high) else _ZERO
                out[c] = scale[c] * before + times_input[c] * row[c] + alone[c]
