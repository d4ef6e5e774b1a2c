"""Connecting to Ray, quietly, and checking that what is asked for can ever run."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray has to offer."""

    num_cpus: int
    num_gpus: int
    dashboard: str | None
    """Address of Ray's dashboard."""

    @property
    def device(self) -> str:
        """`cuda` if the cluster has a GPU, else `cpu`."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def num_slots(self) -> int:
        """Workers that can train at once: one a GPU, or one a CPU core where there is no GPU (two
        processes of one thread train faster than one of two)."""
        return self.num_gpus or self.num_cpus


def connect() -> Cluster:
    """Joins the Ray that RAY_ADDRESS or the submitted job names, or starts one on this machine.

    A Ray started here asks for a token, which Ray makes and keeps in its own place.
    """
    if not ray.is_initialized():
        context = ray.init(log_to_driver=False, logging_level=logging.ERROR)
        dashboard = context.dashboard_url
    else:
        dashboard = None
    resources = ray.cluster_resources()
    return Cluster(
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        dashboard=f"http://{dashboard}" if dashboard else None,
    )


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
