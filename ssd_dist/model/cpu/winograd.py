"""3 x 3 convolutions with a quarter of the multiplications: Winograd's algorithm F(4 x 4, 3 x 3).

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks". A tile of 4 x 4 outputs
takes 36 multiplications for each pair of channels, in place of 144:

    Y = A^T [(G g G^T) * (B^T d B)] A

of a filter g (3 x 3) and the inputs d (6 x 6) below the tile. The products in the middle, summed
over the input's channels, are 36 products of matrices; what comes before and after costs each
channel, not each pair of them, which is why it pays where there are many. Results differ from a
convolution's by rounding alone. cuDNN has it for GPUs; PyTorch has nothing like it for CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _powers(exponents: int) -> Tensor:
    """Rows of a point's powers from 0; the last row is the point at infinity's."""
    finite = torch.tensor([0, 0.75, -0.75, 1.5, -1.5], dtype=torch.float64)
    infinite = F.one_hot(torch.tensor([exponents - 1]), exponents)
    return torch.cat([finite[:, None] ** torch.arange(exponents), infinite])


# Toom and Cook's product of polynomials of 3 and 4 coefficients, by their values at six points,
# transposed. With these points rounding is half of what it is with the usual 0, 1, -1, 2, -2, and
# some eight times that of a convolution.
_INPUT = torch.linalg.inv(_powers(6)).T  # B^T
_FILTER = _powers(3)  # G
_OUTPUT = _powers(4).T  # A^T

_AT_A_TIME = 1_200_000
"""Values of transformed tiles: few enough for a CPU's caches."""


def use_winograd(model: nn.Module) -> None:
    """Has the convolutions of `model`, in place, computed so where that is faster on a CPU. No
    module, weight or name changes, nor what the model computes, but for rounding."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _can_be(module):
            # What `forward` of it and its subclasses calls with input, weight and bias.
            module.__dict__["_conv_forward"] = convolution


def _can_be(module: nn.Conv2d) -> bool:
    return (
        module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.padding_mode == "zeros"
        and module.groups == 1
        # Below, the transformations cost what the products save.
        and module.in_channels * module.out_channels >= 64 * 128
        and min(module.in_channels, module.out_channels) >= 64
    )


def convolution(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `F.conv2d(input, weight, bias, padding=1)` computes.

    Args:
        input: (B, N, H, W).
        weight: (M, N, 3, 3).
        bias: (M), or None.

    Returns:
        (B, M, H, W), laid out with the channels last. Of small maps, of few tiles, in lower
        precision than float32, on other devices than CPUs and for compilers it is PyTorch's own.
    """
    if not _pays(input):
        return F.conv2d(input, weight, bias, padding=1)
    output: Tensor = WinogradConvolution.apply(input, weight, bias)
    return output


def _pays(input: Tensor) -> bool:
    batch, _, height, width = input.shape
    rows, columns = _tiles(input)
    return (
        input.device.type == "cpu"
        and input.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        # Tiles that reach far beyond the map, or too few of them to make up for the filters'
        # transformation.
        and 2 * height * width >= 16 * rows * columns
        and batch * rows * columns >= 64
    )


class WinogradConvolution(torch.autograd.Function):
    """By this name a profiler knows it."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes as in `convolution`."""
        ctx.save_for_backward(input, weight)
        batch, _, height, width = input.shape
        rows, columns = _tiles(input)
        to_products, to_output = _twice(_INPUT, input), _twice(_OUTPUT, input)
        filters = _transformed(weight)
        windows = _windows(_padded(input))
        # Not a view of something larger: what follows may change it in place.
        output = torch.empty(
            (batch, len(weight), height, width),
            dtype=input.dtype,
            memory_format=torch.channels_last,
        )
        cells = output.permute(0, 2, 3, 1)
        for pictures, tile_rows in _parts(windows, len(weight)):
            data = _product(to_products, windows[:, :, pictures, tile_rows])
            tiles = (to_output @ torch.bmm(data, filters).view(36, -1)).view(
                4, 4, -1, len(range(rows)[tile_rows]), columns, len(weight)
            )
            computed = tiles.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)
            place = cells[pictures, 4 * tile_rows.start : 4 * tile_rows.stop]
            computed = computed[:, : place.shape[1], :width]
            if bias is None:
                place.copy_(computed)
            else:
                torch.add(computed, bias, out=place)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The transposes of the transformations and of the products, in reverse order."""
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        batch, _, height, width = input.shape
        rows, columns = _tiles(input)
        to_products, to_filters = _twice(_INPUT, input), _twice(_FILTER, input)
        from_output, from_products = _twice(_OUTPUT, input).t(), to_products.t()
        filters = _transformed(weight)
        padded = _padded(input)
        windows = _windows(padded)
        beyond = (0, 0, 0, 4 * columns - width, 0, 4 * rows - height)
        gradient = F.pad(gradient.permute(0, 2, 3, 1), beyond)
        tiles = gradient.view(batch, rows, 4, columns, 4, -1).permute(2, 4, 0, 1, 3, 5)
        filters_gradient = torch.zeros_like(filters)
        padded_gradient = torch.zeros_like(padded)
        overlapping = _windows(padded_gradient)
        for part in _parts(windows, len(weight)):
            products = _product(from_output, tiles[:, :, *part])
            if of_weight:
                data = _product(to_products, windows[:, :, *part])
                filters_gradient.baddbmm_(data.transpose(1, 2), products)
            if of_input:
                data = torch.bmm(products, filters.transpose(1, 2))
                back = (from_products @ data.view(36, -1)).view(overlapping[:, :, *part].shape)
                # Windows overlap by two cells: what is added at once must not.
                for i in (slice(0, 4), slice(4, 6)):
                    for j in (slice(0, 4), slice(4, 6)):
                        overlapping[i, j, *part].add_(back[i, j])
        weight_gradient = (to_filters.t() @ filters_gradient.view(36, -1)).view(
            3, 3, *filters[0].shape
        )
        input_gradient = padded_gradient[:, 1 : 1 + height, 1 : 1 + width]
        return (
            input_gradient.permute(0, 3, 1, 2) if of_input else None,
            weight_gradient.permute(3, 2, 0, 1) if of_weight else None,
            gradient.sum((0, 1, 2)) if of_bias else None,
        )


def _tiles(input: Tensor) -> tuple[int, int]:
    """Rows and columns of 4 x 4 cells that cover the map."""
    return -(-input.shape[2] // 4), -(-input.shape[3] // 4)


def _twice(matrix: Tensor, like: Tensor) -> Tensor:
    """What multiplies a square, flattened, from both sides by `matrix`, transposed on the right."""
    return torch.kron(matrix, matrix).to(like.dtype)


def _transformed(weight: Tensor) -> Tensor:
    """(36, N, M) filters."""
    flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_twice(_FILTER, weight) @ flat).view(36, weight.shape[1], weight.shape[0])


def _padded(input: Tensor) -> Tensor:
    """(B, 4 rows + 2, 4 columns + 2, N): the map with zeros around it."""
    height, width = input.shape[2:]
    rows, columns = _tiles(input)
    sides = (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height)
    return F.pad(input.permute(0, 2, 3, 1), sides)


def _windows(padded: Tensor) -> Tensor:
    """(6, 6, B, rows, columns, N): the view of a padded map by cell and tile; tiles overlap."""
    return padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)


def _product(matrix: Tensor, windows: Tensor) -> Tensor:
    """(36, tiles, N) of windows (k, k, B, rows, columns, N) and a matrix (36, k^2)."""
    return (matrix @ windows.reshape(matrix.shape[1], -1)).view(36, -1, windows.shape[-1])


def _parts(windows: Tensor, outputs: int) -> Iterator[tuple[slice, slice]]:
    """Pictures and rows of tiles that are computed at a time."""
    batch, rows, columns, inputs = windows.shape[2:]
    few, many = sorted((inputs, outputs))
    # With fewer tiles than that the filters, read for each part, would be most of what is read.
    tiles = max(_AT_A_TIME // (36 * many), few // 2)
    rows_at_a_time = -(-tiles // columns)
    pictures = max(1, rows_at_a_time // rows)
    for first in range(0, batch, pictures):
        for row in range(0, rows, rows_at_a_time):
            yield slice(first, first + pictures), slice(row, row + rows_at_a_time)
