"""1 x 1 convolutions of a map that is normalised, activated and gated on the way, by numba.

A map is (B, R, L), the rows of each picture, see `norm_kernels`; where there is no gate it may as
well be (1, B·R, L). It is computed in parts of whole rows that stay in a core's cache from the
activation to the moments, or from the gradient of what is stored to the sums that a norm needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled
from ssd_dist.model.cpu.matrix_products import (
    add_columns_by_columns,
    rows_by_columns,
    rows_by_rows,
)
from ssd_dist.model.cpu.norm_kernels import (
    Activation,
    activate,
    add_gradient_sums,
    add_moments,
    input_gradients,
)

_AT_A_TIME = 65_536
"""Values of a part of the map with more channels."""


@compiled
def _cells_at_a_time(channels: int, in_a_row: int) -> int:
    """Cells of a part of a map with so many channels: whole rows of so many cells."""
    return max(1, _AT_A_TIME // (channels * in_a_row)) * in_a_row


@compiled
def _values(
    rows: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    factors: NDArray[np.float32],
    buffer: NDArray[np.float32],
) -> None:
    """Writes those of `rows` (r, L), one picture's, to `buffer`; factors are (L), or none."""
    activate(rows, lines, activation, buffer)
    if len(factors):
        for r in range(len(rows)):
            row = buffer[r]
            for c in range(len(factors)):
                row[c] *= factors[c]


@compiled
def convolve(
    sgemm: int,
    input: NDArray[np.float32],
    is_lazy: bool,
    lines: NDArray[np.float32],
    activation: Activation,
    factors: NDArray[np.float32],
    filters: NDArray[np.float32],
    output: NDArray[np.float32],
    moments: NDArray[np.float64] | None,
) -> None:
    """The convolution of a map's values.

    Args:
        sgemm: see `matrix_products`.
        input: (B, R, L), what is stored.
        is_lazy: whether its values are not what is stored.
        lines: (2, L), scale and shift of what is stored.
        activation: of what is scaled and shifted.
        factors: (B, L) of what is activated; (B, 0) without a gate.
        filters: (C, N).
        output: (B, R', L'), written.
        moments: (3, L') of all outputs, added to; see `norm_kernels.add_moments`. None where they
            are not asked for: compiled without them.
    """
    batch, _, columns = input.shape
    outputs, inputs = filters.shape
    in_a_row, out_in_a_row = columns // inputs, output.shape[2] // outputs
    cells = input.shape[1] * in_a_row
    at_a_time = _cells_at_a_time(max(inputs, outputs), max(in_a_row, out_in_a_row))
    buffer = np.empty((at_a_time // in_a_row if is_lazy else 0, columns), np.float32)
    for picture in range(batch):
        for first in range(0, cells, at_a_time):
            end = min(cells, first + at_a_time)
            values = input[picture, first // in_a_row : end // in_a_row]
            if is_lazy:
                _values(values, lines, activation, factors[picture], buffer)
                values = buffer
            products = output[picture, first // out_in_a_row : end // out_in_a_row]
            rows_by_rows(sgemm, end - first, values, filters, products)
            if moments is not None:
                add_moments(products, moments)


@compiled
def backpropagate(
    sgemm: int,
    input: NDArray[np.float32],
    is_lazy: bool,
    lines: NDArray[np.float32],
    activation: Activation,
    factors: NDArray[np.float32],
    mean: NDArray[np.float32],
    filters: NDArray[np.float32],
    output: NDArray[np.float32],
    is_output_lazy: bool,
    output_lines: NDArray[np.float32],
    output_activation: Activation,
    to_output: NDArray[np.float32],
    gradients: NDArray[np.float32],
    of_filters: NDArray[np.float32],
    to_input: bool,
    by_input: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Its gradients, of a norm and an activation behind it too.

    Args:
        sgemm: as in `convolve`, and so are input, is_lazy, lines, activation, factors, filters.
        mean: (L), of the input.
        output: (B, R', L'), of the convolution.
        is_output_lazy: whether its values are not what is stored.
        output_lines: (2, L'), scale and shift of the output; with `output_activation` and
            `to_output` (2, L'), see `norm_kernels.input_gradients`.
        gradients: (B, R', L'), of the output's values.
        of_filters: (C, N), added to.
        to_input: whether the input's are asked for too.
        by_input: (B, R, L), written: the gradient of the input's values.
        sums: (2, L), added to if the input is lazy and has no gate; see
            `norm_kernels.add_gradient_sums`.
    """
    batch, _, columns = input.shape
    outputs, inputs = filters.shape
    out_columns = output.shape[2]
    in_a_row, out_in_a_row = columns // inputs, out_columns // outputs
    cells = input.shape[1] * in_a_row
    at_a_time = _cells_at_a_time(max(inputs, outputs), max(in_a_row, out_in_a_row))
    buffer = np.empty((at_a_time // in_a_row if is_lazy else 0, columns), np.float32)
    out_buffer = np.empty(
        (at_a_time // out_in_a_row if is_output_lazy else 0, out_columns), np.float32
    )
    for picture in range(batch):
        for first in range(0, cells, at_a_time):
            end = min(cells, first + at_a_time)
            out_rows = slice(first // out_in_a_row, end // out_in_a_row)
            of_products = gradients[picture, out_rows]
            if is_output_lazy:
                products = output[picture, out_rows]
                input_gradients(
                    products, of_products, output_lines, output_activation, to_output, out_buffer
                )
                of_products = out_buffer
            stored = input[picture, first // in_a_row : end // in_a_row]
            values = stored
            if is_lazy:
                _values(stored, lines, activation, factors[picture], buffer)
                values = buffer
            add_columns_by_columns(sgemm, end - first, of_products, values, of_filters)
            if to_input:
                of_values = by_input[picture, first // in_a_row : end // in_a_row]
                rows_by_columns(sgemm, end - first, of_products, filters, of_values)
                if is_lazy and not factors.shape[1]:
                    add_gradient_sums(stored, of_values, lines, activation, mean, sums)
