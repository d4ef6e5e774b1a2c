"""The service's workers on Ray Serve: they come and go with the load, and answer in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, LoggingConfig

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.janitor import start_janitor
from ssd_dist.distributed.prediction_stream import Shared
from ssd_dist.distributed.serving_batches import Batches
from ssd_dist.distributed.serving_http import NoWorkerError
from ssd_dist.distributed.serving_inference import Answer, PictureDetector, Refusal

_TRIES = 3
"""Workers that are asked for one picture, if one after the other is lost."""
_STARTS = 3
"""Of Ray Serve at most, if one after the other is ended by who used it before."""
_BETWEEN_STARTS_S = 1.0
_HEALTH_S = 10.0
_NUM_DECODERS = {"cpu": 1, "cuda": 4}
"""Threads of a worker that decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many workers there are, and how they batch."""

    least: int
    most: int
    batch_size: int
    """Pictures that meet the network together, at most."""
    batch_wait_s: float
    """What the first picture of a batch waits for others."""
    max_requests: int
    """Under way, in all."""
    max_pixels: int
    """Of a picture, by its header."""


class _Worker:
    """A replica: holds the network."""

    def __init__(self, checkpoint: Shared, device_type: str, replicas: Replicas) -> None:
        self._detector = PictureDetector(
            checkpoint.get(),
            device_type,
            max_pixels=replicas.max_pixels,
            warm_up=replicas.batch_size,
        )
        self._batches = Batches(
            self._detector.detect, most=replicas.batch_size, wait_s=replicas.batch_wait_s
        )
        self._decoders = ThreadPoolExecutor(_NUM_DECODERS[device_type])

    async def detect(self, content: bytes) -> Answer | Refusal:
        """What is in an encoded picture; it is decoded while the network is busy with others."""
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoders, self._detector.decode, content)
        if isinstance(decoded, Refusal):
            return decoded
        return await self._batches.ask(decoded)


class Workers:
    """The handle of the running replicas."""

    def __init__(self, name: str, handle: DeploymentHandle) -> None:
        self._name, self._handle = name, handle

    async def detect(self, content: bytes) -> Answer | Refusal:
        """Takes an encoded picture to a replica; to another one if it is lost meanwhile. Raises
        NoWorkerError if that happens again and again."""
        for _ in range(_TRIES):
            try:
                return await self._handle.detect.remote(content)
            except RayActorError:
                continue
            except RayServeException as error:
                raise NoWorkerError(f"no worker can answer: {error}") from None
        raise NoWorkerError(f"{_TRIES} workers were lost on this picture")

    async def is_healthy(self) -> bool:
        """Whether Ray Serve calls the application running."""
        return await asyncio.to_thread(self._is_running)

    def _is_running(self) -> bool:
        try:
            status = serve.status().applications.get(self._name)
        except Exception:  # Ray is gone, or has no time
            return False
        return status is not None and status.status == ApplicationStatus.RUNNING


@contextlib.contextmanager
def running_workers(
    checkpoint: Checkpoint, cluster: Cluster, replicas: Replicas
) -> Iterator[Workers]:
    """Starts the workers, and ends them afterwards; Ray Serve itself, too, if nobody else uses it.

    Raises RuntimeError if they can't be started.
    """
    # A name of its own: other services may run on the same Ray.
    name = f"ssd_dist-{ray.get_runtime_context().get_job_id()}"
    on_gpu = cluster.num_gpus > 0
    start_janitor(serve_app=name)
    # Ray Serve's own lines about what it is doing; what goes wrong is still told.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deployment = serve.deployment(
        name="worker",
        # The door bounds the queue: it refuses before a body is read. What it lets in waits at a
        # worker; in Ray Serve's router it would be tried again at ever longer intervals.
        max_ongoing_requests=replicas.max_requests,
        max_queued_requests=-1,
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.least,
            initial_replicas=replicas.least,
            max_replicas=replicas.most,
            target_ongoing_requests=replicas.batch_size,
            upscale_delay_s=5,
            downscale_delay_s=60,
        ),
        ray_actor_options={
            "num_cpus": 0 if on_gpu else 1,
            "num_gpus": 1 if on_gpu else 0,
        },
        graceful_shutdown_timeout_s=30,
        health_check_period_s=_HEALTH_S,
    )(_Worker)
    try:
        application = deployment.bind(Shared(checkpoint), cluster.device, replicas)
        yield Workers(name, _deploy(application, name))
    finally:
        end_application(name)


def _deploy(application: Application, name: str) -> DeploymentHandle:
    """Starts an application on Ray Serve. Who used that before and has just ended takes it down,
    perhaps under our hands: then it is started again."""
    for _ in range(_STARTS - 1):
        with contextlib.suppress(RayActorError, RayServeException):
            return _start(application, name)
        time.sleep(_BETWEEN_STARTS_S)
    return _start(application, name)


def _start(application: Application, name: str) -> DeploymentHandle:
    serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="WARNING"))
    return serve.run(application, name=name, route_prefix=None)


def end_application(name: str) -> None:
    """Ends an application on Ray Serve, and Ray Serve if it was the last one."""
    with contextlib.suppress(RayServeException):
        serve.delete(name)
        if not serve.status().applications:
            serve.shutdown()
