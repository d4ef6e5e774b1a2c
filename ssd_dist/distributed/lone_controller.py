"""Ray Train's controller of a training that is alone on a Ray of one machine.

It runs in the job's own process: another would take two seconds to start, and a hundred megabytes.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
)
from ray.train.v2._internal.execution.worker_group.worker import Worker

from ssd_dist.distributed.head_start import Ahead, HeadStart


class UnannouncedScalingPolicy(FixedScalingPolicy):
    """Does not tell Ray's autoscaler of the workers: there is none, and the actor in between would
    be waited for."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to tell."""

    def _maybe_send_resource_request(self) -> None:
        """Nobody to ask."""


class LoneWorkerGroup(WorkerGroup):
    """Workers whose environment is Ray's own, as it inherited it from the job: a runtime
    environment would say the same and cost each a start of its own."""

    head_start: HeadStart | None = None
    """Workers that are there already."""
    _ahead: Ahead | None = None

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
        if self.head_start is not None:
            self._ahead = self.head_start.take(
                worker_group_context.num_workers, worker_group_context.resources_per_worker
            )
        if self._ahead is not None:
            return DefaultPlacementGroupHandle(self._ahead.group)
        return super()._create_placement_group(scaling_config, worker_group_context)

    def _create_workers(self, num_workers: int, *others: Any, **named: Any) -> Any:
        if self._ahead is None:
            return super()._create_workers(num_workers, *others, **named)
        actors = self._ahead.actors
        try:
            metadata = ray.get([actor.get_metadata.remote() for actor in actors])
        except RayActorError as error:
            raise WorkerGroupStartupFailedError(f"a worker ended as it started: {error}") from error
        resources = self._worker_group_context.resources_per_worker
        return self._assign_worker_ranks(
            [
                Worker(actor, of_it, resources, placement_group_bundle_index=index)
                for index, (actor, of_it) in enumerate(zip(actors, metadata, strict=True))
            ]
        )

    def _init_train_context_on_workers(
        self, workers: Any, sync_actor: Any, train_context_args: Any
    ) -> None:
        # As Ray Train does it, but that its controller is an actor, which a worker could ask for
        # the checkpoints of the run, and that it then asks where workers log, for its dashboard.
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[rank] for name, values in train_context_args.items()},
                )
                for rank, worker in enumerate(workers)
            ]
        )

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env


class LoneController(TrainController):
    """The same, with such workers."""

    def __init__(self, *, head_start: HeadStart | None = None, **arguments: Any) -> None:
        class Group(LoneWorkerGroup):
            pass

        Group.head_start = head_start
        self.worker_group_cls = Group
        super().__init__(**arguments)
