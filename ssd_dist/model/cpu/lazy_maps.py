"""Maps that are normalised, activated and gated where they are read, and never as a whole.

They are NumPy's arrays, (B, H, W, C) float32: between two kernels that stream megabytes through a
core's caches an operation of PyTorch's, which finds nothing of its own there any more, takes five
times as long as one of NumPy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd_dist.model.cpu.norm_kernels import (
    Activation,
    activate,
    add_gradient_sums,
    cells_in_a_row,
    input_gradients,
    settle,
    settle_gradients,
)

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class Normalised:
    """What a batch norm made of its input's moments, or a bias, and the activation behind it."""

    lines: NDArray[np.float32]
    """(2, C): the scale and the shift that are the norm."""
    statistics: NDArray[np.float64]
    """(3, C): mean, 1 / sqrt(variance + eps), number of values."""
    activation: Activation

    @classmethod
    def of(
        cls, norm: nn.BatchNorm2d, moments: NDArray[np.float64], activation: Activation
    ) -> Normalised:
        """`moments`: see `norm_kernels.add_moments`. Updates the norm's running statistics."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        lines = np.empty((2, norm.num_features), np.float32)
        statistics = np.empty((3, norm.num_features))
        settle(
            moments,
            norm.weight.detach().numpy(),
            norm.bias.detach().numpy(),
            norm.eps,
            norm.momentum,
            norm.running_mean.numpy(),
            norm.running_var.numpy(),
            statistics,
            lines,
        )
        norm.num_batches_tracked.add_(1)
        return cls(lines, statistics, activation)

    @classmethod
    def shifted(cls, bias: NDArray[np.float32], activation: Activation) -> Normalised:
        """No norm but a bias, (C): a norm by what infinitely many values have, mean 0 and variance
        1, which these change by nothing."""
        statistics = np.repeat([[0.0], [1.0], [np.inf]], len(bias), axis=1)
        return cls(np.stack([np.ones_like(bias), bias]), statistics, activation)

    @classmethod
    @cache
    def nothing(cls, channels: int) -> Normalised:
        """Neither a norm nor an activation. Made once, as a step asks for it a hundred times."""
        return cls.shifted(np.zeros(channels, np.float32), Activation())

    @property
    def mean(self) -> NDArray[np.float32]:
        """(C)."""
        return self.statistics[0].astype(np.float32)

    def gradients(
        self, sums: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The gradients of γ and β, and (2, C) of which `norm_kernels.input_gradients` makes that
        of its input; `sums`: see `norm_kernels.add_gradient_sums`."""
        of_parameters, to_input = np.empty_like(self.lines), np.empty_like(self.lines)
        settle_gradients(sums, self.lines, self.statistics, of_parameters, to_input)
        return of_parameters[0], of_parameters[1], to_input


class LazyMap:
    """What is stored of a map and what its values are: γ · (stored - mean) / deviation + β,
    activated, times a factor for each picture and channel; or what is stored itself."""

    def __init__(self, stored: NDArray[np.float32], norm: Normalised | None = None) -> None:
        """`stored`: (B, H, W, C)."""
        self.batch, height, width, channels = stored.shape
        self.stored = stored
        self.is_lazy = norm is not None
        """Whether the values are not what is stored."""
        self.norm = norm or Normalised.nothing(channels)
        self.factors: NDArray[np.float32] | None = None
        """(B, C), where there is a gate."""
        self.cells_in_a_picture = height * width
        self.cells_in_a_row = cells_in_a_row(height * width, channels)
        self.columns = self.cells_in_a_row * channels
        """L, of a row."""

    def rows(self, map: NDArray[np.float32]) -> NDArray[np.float32]:
        """(R, L), a view of a map of this one's shape: see `norm_kernels`."""
        return map.reshape(-1, self.columns)

    def pictures(self, map: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, R, L), the rows of each picture, a view."""
        return map.reshape(self.batch, -1, self.columns)

    @cached_property
    def lines(self) -> NDArray[np.float32]:
        """(2, L), scale and shift."""
        return self.wide(self.norm.lines)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """(L)."""
        return self.wide(self.norm.mean)

    def wide(self, lines: NDArray[np.float32]) -> NDArray[np.float32]:
        """(…, C) → (…, L): again for each cell of a row."""
        # Sixteen times as fast as np.tile.
        return np.concatenate([lines] * self.cells_in_a_row, axis=-1)

    def folded(self, sums: NDArray[Real]) -> NDArray[Real]:
        """(…, L) → (…, C), added up over the cells of a row."""
        by_cell = sums.reshape(*sums.shape[:-1], self.cells_in_a_row, -1)
        folded: NDArray[Real] = by_cell.sum(-2)
        return folded

    # NumPy goes through rows five times as fast as through cells.

    def add(self, bias: NDArray[np.float32]) -> None:
        """Adds (C,) to what is stored of each cell."""
        rows = self.rows(self.stored)
        rows += self.wide(bias)

    def summed(self, map: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C,), all cells of a map of this one's shape together."""
        return self.folded(self.rows(map).sum(0))

    def values(self) -> NDArray[np.float32]:
        """(B, H, W, C), of a map without a gate."""
        if not self.is_lazy:
            return self.stored
        values = np.empty_like(self.stored)
        activate(self.rows(self.stored), self.lines, self.norm.activation, self.rows(values))
        return values

    def sums(self, gradient: NDArray[np.float32]) -> NDArray[np.float64]:
        """(2, L): what the norm's gradients need of its values' `gradient`, (B, H, W, C)."""
        sums = np.zeros((2, self.columns))
        rows, gradients = self.rows(self.stored), self.rows(gradient)
        add_gradient_sums(rows, gradients, self.lines, self.norm.activation, self.mean, sums)
        return sums

    def stored_gradient(
        self, gradient: NDArray[np.float32], to_input: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(B, H, W, C), of what is stored, made of its values' `gradient` and of `to_input` (2, C),
        see `Normalised.gradients`."""
        output = np.empty_like(gradient)
        input_gradients(
            self.rows(self.stored),
            self.rows(gradient),
            self.lines,
            self.norm.activation,
            self.wide(to_input),
            self.rows(output),
        )
        return output


def as_array(map: Tensor) -> NDArray[np.float32]:
    """(B, C, H, W) → (B, H, W, C), a view if its channels are last already."""
    array: NDArray[np.float32] = map.detach().numpy().transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def as_tensor(map: NDArray[np.float32]) -> Tensor:
    """(B, H, W, C) → (B, C, H, W) with the channels last, in the same memory."""
    batch, height, width, channels = map.shape
    size = batch, channels, height, width
    strides = height * width * channels, 1, width * channels, channels
    # Not a view, which autograd would not let others change in place.
    return torch.empty(0).set_(torch.from_numpy(map).untyped_storage(), 0, size, strides)
