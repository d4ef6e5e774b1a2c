"""Connecting to Ray, quietly, and checking that what is asked for can ever run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ray

from ssd_dist.config import SYNC_NEEDS_GPUS, Config, Range
from ssd_dist.distributed.access import is_open
from ssd_dist.distributed.joining import join_ray
from ssd_dist.distributed.machines import Machine, machines_at_most
from ssd_dist.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray has to offer, with what its autoscaler may add."""

    machines: tuple[Machine, ...]

    @property
    def num_cpus(self) -> int:
        """CPU cores of all machines."""
        return sum(machine.num_cpus for machine in self.machines)

    @property
    def num_gpus(self) -> int:
        """GPUs of all machines."""
        return sum(machine.num_gpus for machine in self.machines)

    @property
    def device(self) -> str:
        """`cuda` if the cluster has a GPU, else `cpu`."""
        return "cuda" if self.num_gpus else "cpu"

    def num_slots(self, gpus_per_worker: float = 1.0) -> int:
        """Workers that can train at once: one a GPU, or a share of it, with a core of the same
        machine beside it; or, where there is no GPU, one a CPU core (two processes of one thread
        train faster than one of two)."""
        share = gpus_per_worker if self.num_gpus else 0.0
        return sum(machine.num_slots(share) for machine in self.machines)


def connect(terminal: Terminal, *, dashboard: bool = False) -> Cluster:
    """Joins the Ray that RAY_ADDRESS or the submitted job names, or starts one on this machine.

    A Ray started here listens on loopback and asks for a token, which lies in Ray's own place; it
    has a dashboard if `dashboard` is set. Of one that asks for none, people are warned.
    """
    context = join_ray(dashboard=dashboard)
    address = ray.get_runtime_context().gcs_address
    if is_open(address):
        terminal.line(
            f"warning: the Ray at {address} asks for no token, so whoever can reach it can run "
            "programs on its machines: start it with RAY_AUTH_MODE=token (see docs/cluster.md)"
        )
    if context.dashboard_url:
        asks = os.environ.get("RAY_AUTH_MODE") == "token"
        hint = "; it asks for the token that `ray get-auth-token` prints" if asks else ""
        terminal.line(f"Ray's dashboard: http://{context.dashboard_url}{hint}")
    return Cluster(machines_at_most())


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps Ray's own prints from standard output meanwhile; the terminal writes past it."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


def worker_resources(cluster: Cluster, gpus_per_worker: float = 1.0) -> dict[str, float]:
    """What one training worker reserves."""
    return {"CPU": 1, "GPU": gpus_per_worker} if cluster.num_gpus else {"CPU": 1}


def check_gpu_share(gpus_per_trial: float | None, workers_per_trial: int) -> None:
    """Refuses a share of a GPU that no cluster could give. Raises ValueError."""
    if gpus_per_trial is None:
        return
    if not 0 < gpus_per_trial <= 1:
        raise ValueError(
            f"{gpus_per_trial:g} GPUs per trial: a trial takes a share of one GPU, above 0 and at "
            "most 1; for several GPUs ask for more workers per trial"
        )
    if workers_per_trial > 1:
        raise ValueError(
            f"{gpus_per_trial:g} GPUs per trial go with 1 worker a trial, not "
            f"{workers_per_trial}: several workers take a whole GPU each"
        )


def check_fits(
    cluster: Cluster,
    config: Config,
    *,
    num_trials: int,
    workers_per_trial: int,
    gpus_per_trial: float | None = None,
    space: Mapping[str, Range] | None = None,
) -> None:
    """Refuses at once what Ray would wait for without end, and what could not train.

    Every worker of every trial at once is counted against what each machine can hold, so no trial
    ever waits for a part of its workers while others hold the rest.

    Raises ValueError, in one sentence, if `num_trials` at once with `workers_per_trial` each are
    none, or more than the cluster can hold, or more workers than a batch has pictures; or if the
    configuration, a choice of the searched `space` or `gpus_per_trial` asks for GPUs where there
    are none.
    """
    if num_trials < 1 or workers_per_trial < 1:
        raise ValueError(
            f"{num_trials} trials at once with {workers_per_trial} workers each: ask for at least 1"
        )
    if gpus_per_trial is not None and not cluster.num_gpus:
        raise ValueError(
            f"{gpus_per_trial:g} GPUs per trial, and this Ray has no GPU: leave that out"
        )
    share = 1.0 if gpus_per_trial is None else gpus_per_trial
    wanted, num_slots = num_trials * workers_per_trial, cluster.num_slots(share)
    if wanted > num_slots:
        asked = (
            f"{workers_per_trial} workers"
            if num_trials == 1
            else f"{num_trials} trials at once with {workers_per_trial} worker(s) each"
        )
        part = "GPUs" if share == 1 else f"times {share:g} of a GPU"
        kind = f"{part} (and a CPU core on the same machine for each)"
        raise ValueError(
            f"{asked} need {wanted} {kind if cluster.num_gpus else 'CPU cores'}, and this Ray has "
            f"{num_slots}: ask for fewer"
        )
    check_shares(config, workers_per_trial)
    searched = (space or {}).get("model.norm")
    norms = [config.model.norm, *(searched.examples() if searched is not None else ())]
    if "sync" in norms and not cluster.num_gpus:
        raise ValueError(SYNC_NEEDS_GPUS)


def check_shares(config: Config, num_workers: int) -> None:
    """Raises ValueError, in one sentence, if a global batch can't be shared among so many workers:
    each needs a picture, and batch normalisation may need two."""
    smallest = config.global_batch_size // num_workers
    if smallest == 0:
        raise ValueError(
            f"{num_workers} workers can't share a global batch of {config.global_batch_size} "
            "pictures: raise global_batch_size or ask for fewer workers"
        )
    if smallest // config.accumulation == 0:
        raise ValueError(
            f"accumulation: {smallest} pictures can't be met in {config.accumulation} parts: lower "
            "it, raise global_batch_size or ask for fewer workers"
        )
    if smallest // config.accumulation == 1 and config.model.norm == "batch":
        # Here, as what joins Ray does so while torch is imported.
        from ssd_dist.model.norm import check_single_pictures
        from ssd_dist.model.ssd import build_model

        check_single_pictures(build_model(config.model, num_classes=1, load_weights=False))


def fitting_workers(asked: int | None, cluster: Cluster, num_batches: int) -> int:
    """The workers to start: those asked for, or as many as the cluster holds and have a batch.

    Raises ValueError, in one sentence, for what Ray would wait for without end.
    """
    if asked is None:
        return max(1, min(cluster.num_slots(), num_batches))
    if asked < 1:
        raise ValueError(f"--workers must be at least 1, not {asked}")
    if asked > cluster.num_slots():
        kind = "GPUs" if cluster.num_gpus else "CPU cores"
        raise ValueError(
            f"{asked} workers need {asked} {kind}, and this Ray has {cluster.num_slots()}: "
            "ask for fewer"
        )
    return asked
