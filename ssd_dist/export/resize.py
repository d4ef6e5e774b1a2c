"""Resizing as evaluation does it, in whole numbers and ordinary operators, so that it exports.

Evaluation resizes twice: Pillow shrinks the decoded picture until its longer side has S pixels,
then torch stretches it to S x S. Both filter with a triangle, one axis after the other, with
weights rounded to whole numbers, and round to uint8 after each axis. A class score depends on every
one of these roundings: a resize that rounds otherwise, as ONNX's own does, moves it by 0.001. The
passes here repeat them with gathers, products and sums of int32, bit for bit.

Shapes: B pictures of height H and width W, S the network's side; a pass takes n pixels of an axis
to m with T taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import SymInt, Tensor, nn

from ssd_dist.data.cache import shrink, shrunk_size

_PILLOW_BITS = 22
"""Digits behind the binary point of Pillow's weights (libImaging/Resample.c)."""
_TORCH_BITS = 14
"""Of torch's weights, where a picture is stretched (aten's UpSampleKernel.cpp)."""
_STRETCH_TAPS = 2
_X, _Y = 3, 2


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """What each pixel of a resized axis is made of."""

    index: Tensor
    """(m, T) int64: the pixels it takes."""
    weight: Tensor
    """(m, T) int32: their weights, in units of 2^-bits."""
    bits: int


def make_taps(
    num_in: Tensor, num_out: Tensor, num_rows: int, num_taps: int | Tensor | SymInt, bits: int
) -> Taps:
    """The triangle filter that takes `num_in` pixels to `num_out`.

    Args:
        num_in: () float64, n.
        num_out: () float64, m.
        num_rows: rows to make, at least m; those from m on are of no use.
        num_taps: at least as many as any pixel takes; the weights of the others are 0.
        bits: digits of the weights.
    """
    scale = num_in / num_out
    support = scale.clamp(min=1.0)
    rows = torch.arange(num_rows, dtype=torch.float64, device=num_in.device)
    centre = ((rows + 0.5) * scale).unsqueeze(1)
    first = (centre - support + 0.5).floor().clamp(min=0.0)
    taps = torch.arange(num_taps, device=num_in.device)  # type: ignore[arg-type]
    index = first + taps.to(torch.float64)
    weight = (1 - ((index + 0.5 - centre) / support).abs()).clamp(min=0.0)
    weight = weight * (index < num_in).to(torch.float64)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
    whole = (weight * 2.0**bits + 0.5).floor().to(torch.int32)
    return Taps(torch.minimum(index, num_in - 1).long(), whole, bits)


def trimmed_taps(num_in: int, num_out: int, bits: int) -> Taps:
    """The same for sizes that are known, with no more taps than are needed."""
    n, m = (torch.tensor(float(number), dtype=torch.float64) for number in (num_in, num_out))
    most = 2 * -(-max(num_in, num_out) // num_out) + 1
    taps = make_taps(n, m, num_out, most, bits)
    used = int((taps.weight > 0).any(0).nonzero().max()) + 1
    return Taps(taps.index[:, :used].contiguous(), taps.weight[:, :used].contiguous(), bits)


def resample(pictures: Tensor, taps: Taps, axis: int, *, unrolled: bool = True) -> Tensor:
    """(B, 3, H, W) uint8 with `axis` (2 is y, 3 is x) resized by `taps`.

    `unrolled` says to write the sum over the taps out, which is quicker; their number must then be
    known while exporting.
    """
    if axis == _X:  # whole rows are what a gather copies quickly
        flipped = resample(pictures.transpose(2, 3), taps, _Y, unrolled=unrolled)
        return flipped.transpose(2, 3)
    if unrolled:
        total = torch.zeros((), dtype=torch.int32, device=pictures.device)
        for index, weight in zip(taps.index.unbind(1), taps.weight.unbind(1), strict=True):
            total = total + pictures.index_select(_Y, index).int() * weight.unsqueeze(1)
    else:
        num_rows = taps.index.shape[0]
        taken = pictures.index_select(_Y, taps.index.flatten()).unflatten(_Y, (num_rows, -1))
        total = (taken.int() * taps.weight.unsqueeze(2)).sum(3, dtype=torch.int32)
    return ((total + 2 ** (taps.bits - 1)) >> taps.bits).to(torch.uint8)


class FixedResize(nn.Module):
    """Pictures of one size to S x S: `forward` takes (B, 3, H, W) uint8 to (B, 3, S, S) uint8."""

    def __init__(self, width: int, height: int, side: int) -> None:
        super().__init__()
        shrunk_width, shrunk_height = shrunk_size(width, height, side)
        shrinking = [(_X, width, shrunk_width), (_Y, height, shrunk_height)]
        if _vertical_first(width, height, (shrunk_width, shrunk_height)):
            shrinking.reverse()
        passes = [(axis, n, m, _PILLOW_BITS) for axis, n, m in shrinking]
        passes += [(_X, shrunk_width, side, _TORCH_BITS), (_Y, shrunk_height, side, _TORCH_BITS)]
        self.passes: list[tuple[int, int]] = []
        for number, (axis, n, m, bits) in enumerate(one for one in passes if one[1] != one[2]):
            taps = trimmed_taps(n, m, bits)
            self.register_buffer(f"index{number}", taps.index, persistent=False)
            self.register_buffer(f"weight{number}", taps.weight, persistent=False)
            self.passes.append((axis, bits))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        for number, (axis, bits) in enumerate(self.passes):
            index, weight = getattr(self, f"index{number}"), getattr(self, f"weight{number}")
            pictures = resample(pictures, Taps(index, weight, bits), axis)
        return pictures


class DynamicResize(nn.Module):
    """Pictures of any one size a batch to S x S, as :class:`FixedResize` does it.

    Horizontally first: Pillow begins with the vertical pass where a picture is more than about
    twice as high as wide (from its version 13 on), and there a grey level may differ by one. Every
    picture is shrunk onto S x S, of which the rest is never looked at.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        side = self.side
        height, width = picture_size(pictures, torch.float64)
        full = torch.full_like(height, side)
        scale = (full / torch.maximum(height, width)).clamp(max=1.0)
        shrunk_height = (height * scale).round().clamp(min=1.0)
        shrunk_width = (width * scale).round().clamp(min=1.0)
        # Rounding a side to a whole number of pixels makes a scale at most half as large again.
        # Sizes are tensors to the tracer of TorchScript, and symbols to torch.export.
        maximum = torch.maximum if torch.jit.is_tracing() else torch.sym_max
        longest = maximum(*pictures.shape[2:])
        num_taps = (3 * longest + side - 1) // side + 1
        for axis, n, m in ((_X, width, shrunk_width), (_Y, height, shrunk_height)):
            taps = make_taps(n, m, side, num_taps, _PILLOW_BITS)
            pictures = resample(pictures, taps, axis, unrolled=False)
        for axis, n in ((_X, shrunk_width), (_Y, shrunk_height)):
            taps = make_taps(n, full, side, _STRETCH_TAPS, _TORCH_BITS)
            pictures = resample(pictures, taps, axis)
        return pictures


def picture_size(pictures: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Height and width of (B, 3, H, W) pictures as () tensors, which every exporter follows.

    Numbers from `shape` would become constants in one exporter and symbols, whose arithmetic knows
    fewer functions, in another.
    """
    corner = pictures[0, 0]
    height = torch.ones_like(corner[:, 0], dtype=dtype).sum()
    width = torch.ones_like(corner[0], dtype=dtype).sum()
    return height, width


def _vertical_first(width: int, height: int, shrunk: tuple[int, int]) -> bool:
    """Whether Pillow shrinks pictures of this size vertically first; it depends on its version."""
    if height <= width:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = torch.tensor(shrink(noise, shrunk)).permute(2, 0, 1)
    picture = torch.from_numpy(noise).permute(2, 0, 1).unsqueeze(0)
    for axis, n, m in ((_Y, height, shrunk[1]), (_X, width, shrunk[0])):
        picture = resample(picture, trimmed_taps(n, m, _PILLOW_BITS), axis)
    return torch.equal(picture[0], expected)
