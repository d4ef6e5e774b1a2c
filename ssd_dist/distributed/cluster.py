"""Connecting to Ray, quietly, and checking that what is asked for can ever run."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import ray
from ray._private.state import state

from ssd_dist.config import Config
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
        """Workers that can train at once: one a GPU (with a core beside it), or, where there is no
        GPU, one a CPU core (two processes of one thread train faster than one of two)."""
        return min(self.num_gpus, self.num_cpus) if self.num_gpus else self.num_cpus


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


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps Ray's own prints from standard output meanwhile; the terminal writes past it."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


def worker_resources(cluster: Cluster) -> dict[str, float]:
    """What one training worker reserves."""
    return {"CPU": 1, "GPU": 1} if cluster.num_gpus else {"CPU": 1}


def check_fits(
    cluster: Cluster, config: Config, *, num_trials: int, workers_per_trial: int
) -> None:
    """Refuses at once what Ray would wait for without end, and what could not train.

    Raises ValueError, in one sentence, if `num_trials` at once with `workers_per_trial` each are
    none, or more than the cluster can hold, or more workers than a batch has pictures; or if the
    configuration asks for GPUs where there are none.
    """
    if num_trials < 1 or workers_per_trial < 1:
        raise ValueError(
            f"{num_trials} trials at once with {workers_per_trial} workers each: ask for at least 1"
        )
    wanted = num_trials * workers_per_trial
    if wanted > cluster.num_slots:
        asked = (
            f"{workers_per_trial} workers"
            if num_trials == 1
            else f"{num_trials} trials at once with {workers_per_trial} worker(s) each"
        )
        kind = "GPUs (and a CPU core for each)" if cluster.num_gpus else "CPU cores"
        raise ValueError(
            f"{asked} need {wanted} {kind}, and this Ray has {cluster.num_slots}: ask for fewer"
        )
    if workers_per_trial > config.global_batch_size:
        raise ValueError(
            f"{workers_per_trial} workers can't share a global batch of "
            f"{config.global_batch_size} pictures: raise global_batch_size or ask for fewer workers"
        )
    if config.model.norm == "sync" and not cluster.num_gpus:
        raise ValueError("model.norm: sync needs GPUs; on CPUs use batch, frozen or none")
