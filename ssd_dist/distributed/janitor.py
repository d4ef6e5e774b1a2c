"""What ends with a job that can't clean up after itself: one that was killed, or stopped.

Ray ends a dead job's workers and most of its placement groups. What it leaves are the helpers that
Ray Train detaches from the job, one for each training: processes of 100 MB that may never find out
that their training is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_actors, list_jobs, list_placement_groups

from ssd_dist.distributed.joining import started_here
from ssd_dist.distributed.machines import HEAD
from ssd_dist.distributed.progress_board import clear_boards

_INTERVAL_S = 2.0
_HELPER = "PlacementGroupCleaner"
_MOST = 10_000


def start_janitor(serve_app: str | None = None) -> None:
    """Starts it for this job; it ends by itself, seconds after the job. A Ray that the job started
    needs none: it ends with the job, and all that runs there.

    `serve_app`: the job's application on Ray Serve, which would outlive it.
    """
    if started_here():
        return
    job = ray.get_runtime_context().get_job_id()
    # Detached, or it would end with the job; on the head, as Ray Train's helpers are.
    janitor = _Janitor.options(lifetime="detached").remote()  # type: ignore[attr-defined]
    janitor.watch.remote(job, serve_app)


@ray.remote(num_cpus=0, resources={HEAD: 0.001})
class _Janitor:
    def watch(self, job: str, serve_app: str | None) -> None:
        """Waits for the end of `job`, ends what it left, and itself."""
        while _is_alive(job):
            time.sleep(_INTERVAL_S)
        if serve_app is not None:
            from ssd_dist.distributed.serving_replicas import end_application

            end_application(serve_app)
        _clean_up(job)
        ray.actor.exit_actor()


def _is_alive(job: str) -> bool:
    try:
        return any(
            one.job_id == job and one.status in ("PENDING", "RUNNING")
            for one in list_jobs(_address(), limit=_MOST)
        )
    except Exception:  # the dashboard, which answers, is busy or has gone with its Ray
        return True


def _address() -> str:
    # Left out, Ray takes any Ray that it finds on the machine.
    return str(ray.get_runtime_context().gcs_address)


def _clean_up(job: str) -> None:
    clear_boards(job)
    of_job: list[Any] = [("job_id", "=", job), ("state", "=", "ALIVE")]
    here = ray.get_runtime_context().get_node_id()
    for actor in list_actors(_address(), filters=of_job, detail=True, limit=_MOST):
        helper = actor.class_name == _HELPER and actor.node_id == here
        if helper and actor.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(actor.pid, signal.SIGTERM)
    groups: list[Any] = [("creator_job_id", "=", job), ("state", "!=", "REMOVED")]
    for group in list_placement_groups(_address(), filters=groups, limit=_MOST):
        if not getattr(group, "is_detached", False):
            group_id = ray.PlacementGroupID(bytes.fromhex(group.placement_group_id))
            remove_placement_group(PlacementGroup(group_id))
