"""Workers of a training that start while its job still prepares it.

A worker imports for five seconds before it can be told anything, and so does the job before it has
looked at the configuration and the data and can ask Ray Train for workers. So workers are started
as soon as Ray is there, and Ray Train takes them as if it had started them itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2._internal.util import bundle_to_remote_args
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ssd_dist.config import Config
from ssd_dist.distributed.cluster import Cluster, worker_resources
from ssd_dist.distributed.elastic import NumWorkers, wanted_workers
from ssd_dist.distributed.machines import machines_at_most
from ssd_dist.distributed.process_group import import_training


@dataclass(frozen=True, slots=True)
class Ahead:
    """Ray Train's workers, each in its bundle of a placement group."""

    group: PlacementGroup
    actors: tuple[Any, ...]


class HeadStart:
    """Starts workers, which import what a training needs; does not wait for them."""

    def __init__(self, num_workers: int, resources_per_worker: dict[str, float]) -> None:
        group = placement_group([resources_per_worker] * num_workers, strategy="PACK")
        worker = ray.remote(**bundle_to_remote_args(resources_per_worker))(RayTrainWorker)
        actors: tuple[Any, ...] = tuple(
            worker.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=index
                )
            ).remote()
            for index in range(num_workers)
        )
        for actor in actors:
            actor.execute.remote(import_training)
        self._resources_per_worker = resources_per_worker
        self._ahead: Ahead | None = Ahead(group, actors)

    def take(self, num_workers: int, resources_per_worker: dict[str, float]) -> Ahead | None:
        """The workers, for the first who asks and wants just these; else they are ended."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        if (len(ahead.actors), self._resources_per_worker) == (num_workers, resources_per_worker):
            return ahead
        remove_placement_group(ahead.group)
        return None


def start_ahead(asked: NumWorkers | None, config: Config) -> HeadStart | None:
    """Starts the workers that a training will ask for. None where their number is not known before,
    or there is no room for them, which the training itself will tell.

    Imports no torch, as another thread does so meanwhile.

    Args:
        asked: what its user asked for, if anything.
        config: its configuration.
    """
    cluster = Cluster(machines_at_most())
    num_workers = wanted_workers(asked, cluster, config)
    if not isinstance(num_workers, int) or not 1 <= num_workers <= cluster.num_slots():
        return None
    return HeadStart(num_workers, worker_resources(cluster))
