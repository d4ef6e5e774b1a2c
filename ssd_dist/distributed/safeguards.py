"""What guards a training worker: its watchdog, its notice of its end, its patience with storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from ssd_dist.distributed.interrupted import (
    discard_interrupted,
    interrupted_location,
    keep_interrupted,
)
from ssd_dist.distributed.preemption import Notice, notice_of_end
from ssd_dist.distributed.watchdog import Watchdog
from ssd_dist.engine import Worker
from ssd_dist.interruption import TrainingInterruptedError


@dataclass(frozen=True, slots=True)
class Safeguards:
    """What a training's workers have to know for that; made by the driver."""

    storage: str
    """The experiment's location."""
    training: str
    """The training's name in the experiment, such as `search/trial-0003`."""
    hang_timeout_s: float | None
    """See :class:`Watchdog`."""

    @property
    def interrupted(self) -> str:
        """Location of the state that is left by a training that was asked to stop."""
        return interrupted_location(self.storage, self.training)


class Guard:
    """A worker's safeguards, at work; see :func:`guarded`."""

    def __init__(
        self, safeguards: Safeguards, worker: Worker, notice: Notice, watchdog: Watchdog
    ) -> None:
        self._safeguards, self._worker = safeguards, worker
        self._notice, self._watchdog = notice, watchdog
        self._gone_beyond = False

    def check_in(self) -> bool:
        """In each step: a sign of life; whether the training is to stop."""
        self._watchdog.sign_of_life()
        return self._notice.given()

    def waiting(self) -> None:
        """A sign of life of a worker that waits for the storage."""
        self._watchdog.sign_of_life()

    def stored(self) -> None:
        """After each epoch's checkpoint: an interrupted epoch before it is not needed any more."""
        self._watchdog.sign_of_life()
        if self._worker.rank == 0 and not self._gone_beyond:
            discard_interrupted(self._safeguards.interrupted)
            self._gone_beyond = True

    def keep(self, interrupted: TrainingInterruptedError, scratch: Path) -> None:
        """Stores the state of a training that was asked to stop, and waits to be ended."""
        if self._worker.rank == 0:
            keep_interrupted(interrupted, self._safeguards.interrupted, scratch)
        if interrupted.together and self._worker.world_size > 1:
            dist.barrier()  # an error of one worker ends them all
        self._notice.wait_for_end()


@contextmanager
def guarded(safeguards: Safeguards, worker: Worker) -> Iterator[Guard]:
    """Guards this worker's training meanwhile."""
    with (
        notice_of_end(safeguards.training, saves=worker.rank == 0) as notice,
        Watchdog(safeguards.hang_timeout_s) as watchdog,
    ):
        yield Guard(safeguards, worker, notice, watchdog)
