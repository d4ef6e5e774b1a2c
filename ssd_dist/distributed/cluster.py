"""Connecting to Ray, quietly, and checking that what is asked for can ever run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import ray
from ray._private.state import state

from ssd_dist.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray has to offer, with what its autoscaler may add."""

    num_cpus: int
    num_gpus: int

    @property
    def device(self) -> str:
        """`cuda` if the cluster has a GPU, else `cpu`."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def num_slots(self) -> int:
        """Workers that can train at once: one a GPU, or one a CPU core where there is no GPU (two
        processes of one thread train faster than one of two)."""
        return self.num_gpus or self.num_cpus


def connect(terminal: Terminal) -> Cluster:
    """Joins the Ray that RAY_ADDRESS or the submitted job names, or starts one on this machine.

    A Ray started here asks for a token, which Ray makes and keeps in its own place.
    """
    context = ray.init(log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    if context.dashboard_url:
        terminal.line(f"Ray's dashboard: http://{context.dashboard_url}")
    here = ray.cluster_resources()
    # What the autoscaler may add counts as well: a cluster at rest has no workers at all.
    at_most = state.get_max_resources_from_cluster_config() or {}

    def most(kind: str) -> int:
        return int(max(here.get(kind, 0), at_most.get(kind, 0)))

    return Cluster(num_cpus=most("CPU"), num_gpus=most("GPU"))


def worker_resources(cluster: Cluster) -> dict[str, float]:
    """What one training worker reserves."""
    return {"CPU": 1, "GPU": 1} if cluster.num_gpus else {"CPU": 1}


def check_fits(cluster: Cluster, *, num_trials: int, workers_per_trial: int) -> None:
    """Refuses at once what Ray would wait for without end.

    Raises ValueError, in one sentence, if `num_trials` at once with `workers_per_trial` each are
    more than the cluster can hold.
    """
    kind = "GPUs" if cluster.num_gpus else "CPU cores"
    wanted = num_trials * workers_per_trial
    if wanted > cluster.num_slots:
        asked = (
            f"{workers_per_trial} workers"
            if num_trials == 1
            else f"{num_trials} trials at once with {workers_per_trial} worker(s) each"
        )
        raise ValueError(
            f"{asked} need {wanted} {kind}, and this Ray has {cluster.num_slots}: ask for fewer"
        )
