"""Ray Train's controller of a training that is alone on a Ray of one machine.

A module of its own, as the controller's process imports it and has no use for torch.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup


class UnannouncedScalingPolicy(FixedScalingPolicy):
    """Does not tell Ray's autoscaler of the workers: there is none, and the actor in between would
    be waited for."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to tell."""

    def _maybe_send_resource_request(self) -> None:
        """Nobody to ask."""


class _WorkerGroup(WorkerGroup):
    """Workers whose environment is Ray's own, as it inherited it from the job: a runtime
    environment would say the same and cost each a start of its own."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env


class LoneController(TrainController):
    """The same, with such workers."""

    worker_group_cls = _WorkerGroup
