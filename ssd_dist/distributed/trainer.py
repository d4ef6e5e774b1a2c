"""Ray Train's trainer without what this project has no use for.

Ray Train starts a process for each of its helpers. On a Ray that a job starts for itself they take
a good part of the time until the first step, and the main thread of each wakes up a hundred times a
second: workers that fill all cores wait for them, and for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from ray._private.log import PlainRayHandler
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.metrics import (
    ControllerMetricsCallback,
    WorkerMetricsCallback,
)
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.state_manager import StateManagerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from ssd_dist.distributed.head_start import HeadStart
from ssd_dist.distributed.lone_controller import LoneController, UnannouncedScalingPolicy
from ssd_dist.distributed.lone_synchronisation import no_synchronisation_actor


class Trainer(TorchTrainer):
    """Without the actor that hands out Ray Data sets, as there are none: it would take a second of
    the start and 175 MB."""

    unwanted: tuple[type, ...] = (DatasetsCallback,)
    """Callbacks of Ray Train that are left out."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees Train v1
        return [one for one in callbacks if not isinstance(one, self.unwanted)]


class LoneTrainer(Trainer):
    """For a training that is alone on a Ray of one machine, which ends with it.

    Its controller runs in this process, and its workers wait for each other without an actor. What
    would clean up after it is left out, and so is what only a dashboard shows: metrics, and the
    state of runs; for a fixed number of workers no autoscaler is asked for machines. Workers
    inherit the job's environment, as all of this Ray do, so that they can be processes that Ray has
    started ahead, or workers that the job has: `head_start`.
    """

    unwanted = (
        DatasetsCallback,
        PlacementGroupCleanerCallback,
        ControllerMetricsCallback,
        StateManagerCallback,
        WorkerMetricsCallback,
    )

    def __init__(self, *arguments: Any, head_start: HeadStart | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_start = head_start

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        policy = arguments["scaling_policy"]
        if type(policy) is FixedScalingPolicy:
            arguments["scaling_policy"] = UnannouncedScalingPolicy(policy.scaling_config)
        with _silent_logging():
            controller = LoneController(head_start=self._head_start, **arguments)
        # Not asyncio.run, which would let Ctrl-C wait for whatever the controller waits for.
        with no_synchronisation_actor(), asyncio.Runner() as runner:
            runner.get_loop().run_until_complete(controller.run())
        return controller.get_result()


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    """Around the making of a controller, which sets its own logging up: what that tells, then and
    later, goes to Ray's files alone, as from a process of its own."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        yield
    logger = logging.getLogger("ray.train")
    for handler in list(logger.handlers):
        if isinstance(handler, PlainRayHandler):
            logger.removeHandler(handler)
