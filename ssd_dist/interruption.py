"""Trainings that are asked to stop in the middle of an epoch, and what they go on from.

Nothing random has a state that would have to be kept: the order of the pictures and their variation
depend on the seed and the epoch, dropout and the like on the seed and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssd_dist.structures import Batch

_STEPS_BETWEEN_READS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """What is done of an epoch, beside what the weights and the optimizer's state tell."""

    num_steps: int = 0
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Over these steps: L_conf / N, L_loc / N, norm of the gradient."""
    seconds: float = 0.0
    losses: Mapping[str, float] | None = None
    """The epoch's mean losses, if all of its steps are done and the validation is left."""


class EpochInterruptedError(Exception):
    """The training was asked to stop, and did after `part` of the epoch."""

    def __init__(self, part: EpochPart) -> None:
        super().__init__(f"stopped after {part.num_steps} steps of the epoch")
        self.part = part


class TrainingInterruptedError(Exception):
    """The training was asked to stop, and did; it can go on from what `save` writes."""

    def __init__(self, epoch: int, part: EpochPart, save: Callable[[Path], None]) -> None:
        super().__init__(f"stopped after {part.num_steps} steps of epoch {epoch + 1}")
        self.epoch = epoch
        """Epochs finished before."""
        self.part = part
        self.save = save
        """Writes the checkpoint folder."""

    @property
    def together(self) -> bool:
        """Whether all workers stopped, at the same step; if not, it was worker 0 alone."""
        return self.part.losses is None


def never() -> bool:
    """The answer where nobody asks for a stop, or nothing is left to do."""
    return False


def agreed(asked: bool, num_asked: Tensor, world_size: int, step: int) -> bool:
    """Whether all workers stop after this step: the same answer on each.

    Args:
        asked: whether this worker was asked to.
        num_asked: how many of all workers were, as a number on their device.
        world_size: number of workers.
        step: counted from 0. A GPU that is asked waits for its work, so it is asked now and then.
    """
    if world_size == 1:
        return asked
    if num_asked.is_cuda and step % _STEPS_BETWEEN_READS:
        return False
    return bool(num_asked > 0)


def interruptible(
    batches: Iterable[Batch], check_in: Callable[[], bool], part: EpochPart, *, may_stop: bool
) -> Iterator[Batch]:
    """The batches of a validation that may be left at any of them, by an EpochInterruptedError."""
    for batch in batches:
        if check_in() and may_stop:
            raise EpochInterruptedError(part)
        yield batch
