"""Ray Train's trainer without what this project has no use for.

Ray Train starts a process for each of its helpers. On a Ray that a job starts for itself they take
a good part of the time until the first step, and the main thread of each wakes up a hundred times a
second: workers that fill all cores wait for them, and for each other.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.metrics import (
    ControllerMetricsCallback,
    WorkerMetricsCallback,
)
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from ssd_dist.distributed.lone_controller import LoneController, UnannouncedScalingPolicy


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

    What would clean up after its controller is left out, and so are metrics that no dashboard
    shows; for a fixed number of workers no autoscaler is asked for machines. Its processes inherit
    the job's environment, as all of this Ray do, so that they can be those that Ray has started
    ahead.
    """

    unwanted = (
        DatasetsCallback,
        PlacementGroupCleanerCallback,
        ControllerMetricsCallback,
        WorkerMetricsCallback,
    )

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        policy = arguments["scaling_policy"]
        if type(policy) is FixedScalingPolicy:
            arguments["scaling_policy"] = UnannouncedScalingPolicy(policy.scaling_config)
        controller: Any = ray.remote(num_cpus=0)(LoneController).remote(**arguments)
        if threading.current_thread() is threading.main_thread():
            self._register_sigint_handler(controller)  # type: ignore[attr-defined]  # as above
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())
