"""How work is cut to suit the device. The results are the same on all of them.

A GPU works ahead of Python, and a shape that depends on data would make it wait: there, and where
torch compiles, everything is computed at once and masked. A CPU has nobody to keep waiting: it
leaves out what the mask would drop, and goes through large tensors in parts that stay in a core's
cache, which is three times as fast as one pass through memory for each operation.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PART_BYTES = 2**19
"""Of one tensor of a part; three or four of them share a core's second-level cache."""

Place = tuple[Tensor, ...] | tuple[slice, ...]
"""What indexes the leading dimensions of a tensor: some positions of them, or all."""


def waits_for_nobody(tensor: Tensor) -> bool:
    """Whether a shape may depend on the tensor's data: it is on the CPU, and nothing compiles."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def places(mask: Tensor) -> Place:
    """Where something has to be computed for what the mask keeps: indices of the true elements, in
    order; on a GPU of all. What is computed at false ones must be masked in either case."""
    if waits_for_nobody(mask):
        return mask.nonzero(as_tuple=True)
    return (slice(None),) * mask.ndim


def take(rows: Tensor, place: Place) -> Tensor:
    """`rows[place]` of one leading dimension, by the operation whose gradient is quickest."""
    [index] = place
    return rows.index_select(0, index) if isinstance(index, Tensor) else rows[index]


def largest(counts: Tensor, limit: int) -> int:
    """A bound of whole numbers (at least one) that are at most `limit`: the largest of them; on a
    GPU the limit."""
    return min(int(counts.max()), limit) if waits_for_nobody(counts) else limit


def parts(tensor: Tensor, length: int, row_bytes: int) -> list[slice]:
    """Cuts 0…`length` into parts for which one tensor of `row_bytes` a row fits into a core's
    cache; on a GPU there is one part."""
    size = max(1, _PART_BYTES // max(1, row_bytes)) if waits_for_nobody(tensor) else max(1, length)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
