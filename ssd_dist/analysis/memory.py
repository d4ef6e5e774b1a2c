"""How much memory a training step takes: what autograd keeps, and what is alive at once.

Both are read off a step on tensors without memory, on which PyTorch keeps and frees what it would
keep and free on real ones. Neither sees the scratch space inside a kernel, nor an allocator's
rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from ssd_dist.analysis.layers import distinct_tensors, storage_of


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a training step takes."""

    weights: int
    """Parameters, and buffers such as batch norm's statistics and the priors."""
    gradients: int
    """Of the parameters that train."""
    optimizer_state: int
    average: int
    """The moving average of the weights, where there is one."""
    activations: int
    """What autograd keeps of the forward pass and the loss for the backward pass; of one part where
    the batch is met in several (`accumulation`)."""
    batch: int
    """The pictures (uint8) and their targets."""
    peak: int
    """The most that is alive at any one time: gradients come while activations go."""

    @property
    def total(self) -> int:
        """The sum of all but the peak."""
        return (
            self.weights
            + self.gradients
            + self.optimizer_state
            + self.average
            + self.activations
            + self.batch
        )


@contextmanager
def saved_for_backward(own: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes of each memory that autograd keeps for the backward pass of what runs inside, views of
    one memory counted once; without the memory of `own` tensors (parameters, buffers, the batch),
    which is there anyway."""
    known = {storage_of(tensor) for tensor in own}
    saved: dict[int, int] = {}

    def look_at(tensor: Tensor) -> Tensor:
        if storage_of(tensor) not in known:
            saved[storage_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(look_at, lambda tensor: tensor):
        yield saved


class LiveMemory(TorchDispatchMode):
    """Follows the bytes of all tensors that are made inside the `with`, until they are freed.

    `peak` is the most that was alive at once; `own` tensors do not count.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._followed: dict[int, Any] = {storage_of(tensor): None for tensor in own}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the operation, and follows what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in distinct_tensors(result):
            self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._followed:
            return

        def freed(_: object) -> None:
            self.alive -= num_bytes
            del self._followed[key]

        self._followed[key] = weakref.ref(storage, freed)
        self.alive += num_bytes
        self.peak = max(self.peak, self.alive)
