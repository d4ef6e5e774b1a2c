"""How far a training is: told by its first worker, read by the driver.

Both are processes of Ray's, perhaps on different machines. What they share lies in the key-value
store of Ray's head, under the training's own prefix: an actor in between would be one more process
to start, and one more to wake up beside workers that fill all cores.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from ssd_dist.distributed import head_store


@dataclass(frozen=True, slots=True)
class Progress:
    """What the driver has not been told yet."""

    step: int
    """Finished steps of the training."""
    num_steps: int
    """Steps in all; at least 1."""
    epochs: tuple[dict[str, float], ...]
    """Metrics of the epochs that are over."""
    notes: tuple[str, ...]
    """Sentences for people."""


@dataclass(frozen=True, slots=True)
class ProgressBoard:
    """A training's board; may be sent to its workers.

    What can't be pinned up because Ray's head does not answer, after Ray's own time-out, is lost
    and costs a line: the training goes on. The reason of a divergence alone has to arrive.
    """

    prefix: str
    """Of its keys."""

    def push_step(self, step: int, num_steps: int) -> None:
        """From the worker: `step` of `num_steps` steps are done."""
        with contextlib.suppress(RayError):
            self._put("step", [step, num_steps])

    def push_epoch(self, metrics: Mapping[str, float]) -> None:
        """From the worker: an epoch is over."""
        with contextlib.suppress(RayError):
            self._push({"epoch": dict(metrics)})

    def push_start(self, num_workers: int, *, resumed: bool) -> None:
        """From the first worker: all have been started; anew, if a machine was lost or has come."""
        with contextlib.suppress(RayError):
            if resumed:
                self.push_note(f"going on from the last checkpoint with {num_workers} worker(s)")
            elif head_store.exists(f"{self.prefix}/started"):
                self.push_note(f"beginning again with {num_workers} worker(s)")
            self._put("started", True)

    def push_note(self, note: str) -> None:
        """From the first worker: a sentence for people."""
        with contextlib.suppress(RayError):
            self._push({"note": note})

    def push_divergence(self, reason: str) -> None:
        """From the worker: the training diverged. Raises RayError if Ray's head does not answer."""
        self._put("diverged", reason)

    def divergence(self) -> str | None:
        """For the driver: why the training diverged; None if it did not."""
        reason: str | None = self._get(f"{self.prefix}/diverged")
        return reason

    def fetch(self) -> Progress:
        """For the driver: the latest step, and the epochs and notes since the last call.

        Raises RayError if Ray's head does not answer.
        """
        step, num_steps = self._get(f"{self.prefix}/step") or (0, 1)
        keys = head_store.keys_below(f"{self.prefix}/event/")
        events = [self._get(key) for key in keys]
        for key in keys:
            head_store.delete(key)
        return Progress(
            step,
            num_steps,
            tuple(event["epoch"] for event in events if "epoch" in event),
            tuple(event["note"] for event in events if "note" in event),
        )

    def clear(self) -> None:
        """For the driver: takes the board down."""
        with contextlib.suppress(RayError):
            head_store.delete_below(f"{self.prefix}/")

    def _push(self, event: dict[str, Any]) -> None:
        self._put(f"event/{time.time_ns():020d}", event)

    def _put(self, key: str, value: Any) -> None:
        head_store.put(f"{self.prefix}/{key}", json.dumps(value))

    def _get(self, key: str) -> Any:
        value = head_store.get(key)
        return None if value is None else json.loads(value)


def new_board() -> ProgressBoard:
    """An empty board of a training on the Ray that was joined."""
    return ProgressBoard(f"{_of_job(ray.get_runtime_context().get_job_id())}{uuid.uuid4().hex}")


def clear_boards(job: str) -> None:
    """Takes down what a job left that could not do so itself."""
    head_store.delete_below(_of_job(job))


def _of_job(job: str) -> str:
    return f"progress/{job}/"
