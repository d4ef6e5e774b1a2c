"""How the workers of a training that is alone on its machine wait for each other at an epoch's end.

Ray Train has an actor for it, one more process, which takes a hundredth of a core while it does
nothing. The workers are connected anyway, for their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.train.v2._internal.execution.worker_group import state, worker_group


class Synchronisation:
    """Takes the place of the handle of Ray Train's `SynchronizationActor`, and of its class: what
    is called of it, is called as a method of an actor."""

    @classmethod
    def options(cls, **_: Any) -> type[Synchronisation]:
        """No process, no options."""
        return cls

    @classmethod
    def remote(cls, **_: Any) -> Synchronisation:
        """No process is started."""
        return cls()

    @property
    def broadcast_from_rank_zero(self) -> _Broadcast:
        """The only thing that a training calls of it."""
        return _Broadcast()


class _Broadcast:
    """A method of an actor."""

    def remote(self, *, world_size: int, data: Any, **_: Any) -> ray.ObjectRef[Any]:
        """In each worker: what worker 0 gave as `data`, once it has called this. Raises what the
        process group raises if it is gone."""
        if world_size > 1:
            import torch.distributed as dist  # the driver, too, imports this module, but no torch

            objects = [data]
            dist.broadcast_object_list(objects, src=0)
            [data] = objects
        return ray.put(data)


@contextmanager
def no_synchronisation_actor() -> Iterator[None]:
    """Workers that Ray Train starts meanwhile are synchronised so."""
    actor, shut_down = worker_group.SynchronizationActor, state._shutdown_sync_actor
    worker_group.SynchronizationActor = Synchronisation  # type: ignore[assignment,misc]
    state._shutdown_sync_actor = lambda sync_actor: None
    try:
        yield
    finally:
        worker_group.SynchronizationActor = actor  # type: ignore[misc]
        state._shutdown_sync_actor = shut_down
