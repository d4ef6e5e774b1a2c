"""Sums and factors of each picture's channels; compiled by numba.

Maps are (B, R, L) float32: the rows of each picture, see `norm_kernels`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled
from ssd_dist.model.cpu.norm_kernels import Activation, activate

_ROWS = 64
"""Summed in float32; these sums are in float64."""


@compiled
def sum_activations(
    map: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    sums: NDArray[np.float64],
) -> None:
    """Adds to `sums` (B, L) those of each picture's activations; arguments as in `activate`."""
    batch, rows, columns = map.shape
    activated, part = np.empty((_ROWS, columns), np.float32), np.empty(columns, np.float32)
    for picture in range(batch):
        for first in range(0, rows, _ROWS):
            end = min(rows, first + _ROWS)
            part[:] = 0
            activate(map[picture, first:end], lines, activation, activated)
            for r in range(end - first):
                row = activated[r]
                for c in range(columns):
                    part[c] += row[c]
            for c in range(columns):
                sums[picture, c] += part[c]


@compiled
def sum_products(
    map: NDArray[np.float32],
    lines: NDArray[np.float32],
    activation: Activation,
    gradients: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Adds to `sums` (B, L) those of each picture's activations times `gradients` (B, R, L)."""
    batch, rows, columns = map.shape
    activated, part = np.empty((_ROWS, columns), np.float32), np.empty(columns, np.float32)
    for picture in range(batch):
        for first in range(0, rows, _ROWS):
            end = min(rows, first + _ROWS)
            part[:] = 0
            activate(map[picture, first:end], lines, activation, activated)
            for r in range(end - first):
                row, gradient = activated[r], gradients[picture, first + r]
                for c in range(columns):
                    part[c] += row[c] * gradient[c]
            for c in range(columns):
                sums[picture, c] += part[c]


@compiled
def scale_and_shift(
    map: NDArray[np.float32], factors: NDArray[np.float32], shifts: NDArray[np.float32]
) -> None:
    """Makes each picture of `map`, in place, map · factors + shifts, which are (B, L)."""
    batch, rows, columns = map.shape
    for picture in range(batch):
        factor, shift = factors[picture], shifts[picture]
        for r in range(rows):
            row = map[picture, r]
            for c in range(columns):
                row[c] = row[c] * factor[c] + shift[c]
