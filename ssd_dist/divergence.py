"""Notices a loss that is not finite at its step, without waiting for the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

MOST_NAMED = 32
"""Pictures that a message names."""
_LAG = {"cuda": 1}
"""Steps after which a value is read, by the device; 0 elsewhere. By then a GPU has the whole next
step to work on, so reading costs it nothing."""


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number: the training can't go on."""


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    lr: float
    indices: Tensor
    values: Tensor
    """Loss and gradient norm, in the host's memory once `arrived` says so."""
    arrived: Callable[[], object]
    """Waits for that."""


class LossWatch:
    """Looks at every step's loss and gradient norm.

    On a CPU before the optimizer's step. On a GPU while the next step is under way, always the
    same number of steps later, so that all workers end together; the step that is named is the one
    where it happened. The weights are spoilt by then, but nothing is done with them any more.
    """

    def __init__(
        self, device: torch.device, world_size: int, picture_name: Callable[[int], str]
    ) -> None:
        """`picture_name` takes a position in the split."""
        self._lag = _LAG.get(device.type, 0)
        self._world_size = world_size
        self._picture_name = picture_name
        self._waiting: deque[_Step] = deque()

    def see(self, step: int, loss: Tensor, norm: Tensor, lr: float, indices: Tensor) -> None:
        """Takes a step's values.

        Args:
            step: counted from 0.
            loss: Eq. 1 of the whole batch, of all workers: the same on each.
            norm: of the whole batch's gradient, likewise.
            lr: learning rate.
            indices: (B,) positions of this worker's pictures in the split.

        Raises NonFiniteLossError for this step, or an earlier one, on all workers alike.
        """
        values, arrived = _to_host(torch.stack([loss.detach(), norm]))
        self._waiting.append(_Step(step, lr, indices, values, arrived))
        while len(self._waiting) > self._lag:
            self._check(self._waiting.popleft())

    def finish(self) -> None:
        """Looks at what is left; see :meth:`see`."""
        while self._waiting:
            self._check(self._waiting.popleft())

    def _check(self, step: _Step) -> None:
        step.arrived()
        loss, norm = step.values.tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            return
        names = [self._picture_name(index) for index in step.indices.tolist()]
        if self._world_size > 1:
            gathered: list[list[str]] = [[]] * self._world_size
            dist.all_gather_object(gathered, names)
            names = [name for part in gathered for name in part]
        more = len(names) - MOST_NAMED
        pictures = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise NonFiniteLossError(
            f"loss {loss:g} with gradient norm {norm:g} at step {step.number} of the epoch "
            f"(lr {step.lr:g}, pictures {pictures}): lower the learning rate"
        )


def _to_host(values: Tensor) -> tuple[Tensor, Callable[[], object]]:
    """The values in the host's memory, and how to wait until they are there."""
    if not values.is_cuda:
        return values, lambda: None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return host, copied.synchronize
