"""What runs inside one trial of a search."""

from __future__ import annotations

import contextlib
import functools
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.train._internal.session import get_session
from ray.train._internal.storage import StorageContext
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from ssd_dist.allocator import return_memory
from ssd_dist.analysis.timing import time_inference
from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import Config, replace_at
from ssd_dist.distributed.buckets import local_copy, located
from ssd_dist.distributed.cluster import Cluster, worker_resources
from ssd_dist.distributed.failures import root_cause
from ssd_dist.distributed.interrupted import store_checkpoint
from ssd_dist.distributed.memory import LESS_MEMORY, WorkerMemoryError
from ssd_dist.distributed.mirror import RAY
from ssd_dist.distributed.patience import patiently
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.train import build_trainer, fit
from ssd_dist.distributed.train_worker import resumed_from
from ssd_dist.distributed.worker import train_and_report
from ssd_dist.engine import place
from ssd_dist.model.restored import restored
from ssd_dist.provenance import cpu_name
from ssd_dist.search_config import Objective
from ssd_dist.training import open_dataset

NUM_TIMED_PICTURES = 50
_POLL_INTERVAL_S, _GRACE_S = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """What all trials of a search have in common."""

    config: Config
    """Without the search."""
    data: str
    folder: Path
    """The experiment's, on the driver's machine."""
    storage: str
    """The experiment's location for all nodes: the same folder, or a URI."""
    cluster: Cluster
    num_workers: int
    """Training processes of a trial."""
    gpus_per_worker: float
    """Share of a GPU that each takes, where there are GPUs."""
    objectives: tuple[Objective, ...]
    hang_timeout_s: float | None = None
    """See :class:`Watchdog`."""
    name: str = "search"
    """What the trials are of: their name in the experiment begins with it."""

    def safeguards(self, number: int) -> Safeguards:
        """Of the trial `number`."""
        return Safeguards(self.storage, f"{self.name}/trial-{number:04d}", self.hang_timeout_s)


def run_trial(suggestion: Mapping[str, Any], request: TrialRequest) -> None:
    """One trial: a training in this process, or, with several workers, a Ray Train run.

    Args:
        suggestion: `number`, `parameters`, and `resume`, the checkpoint to go on from or None.
        request: what all trials have in common.
    """
    return_memory()
    config = replace_at(request.config, suggestion["parameters"])
    if request.num_workers == 1:
        _train_here(config, suggestion, request)
    else:
        _train_nested(config, suggestion, request)


def measure_ms_per_image(checkpoint: str, data: str, device_type: str) -> float:
    """Median time from a validation picture in memory to its detections, one picture at a time;
    `checkpoint` is a location.

    Other trials may be at work on the same machine: the values of one search compare with each
    other, and the report of the best checkpoint measures it alone.
    """
    with local_copy(checkpoint) as folder:
        loaded = load_checkpoint(folder)
    config, device = loaded.config, torch.device(device_type)
    dataset = open_dataset(config, data, config.data.val_split, class_names=loaded.class_names)
    model = place(restored(loaded), config, device)
    pictures = [dataset[i].image for i in range(min(len(dataset), NUM_TIMED_PICTURES))]
    return time_inference(model, pictures, config, device).median


def this_machine(device_type: str) -> str:
    """Its name, and what a training of `device_type` (`cuda` or `cpu`) runs on there."""
    name = torch.cuda.get_device_name() if device_type == "cuda" else cpu_name()
    return f"{socket.gethostname()}: {name}"


def _train_here(config: Config, suggestion: Mapping[str, Any], request: TrialRequest) -> None:
    # After a lost worker Ray Tune starts the trial again with its own last checkpoint, which is
    # newer than the one that an earlier driver left.
    checkpoint = tune.get_checkpoint()
    device = request.cluster.device
    machine = this_machine(device)

    safeguards = request.safeguards(suggestion["number"])
    store_whole(get_session().storage, request.storage)  # type: ignore[union-attr]

    def report_epoch(
        metrics: dict[str, Any], folder: Path | None, waiting: Callable[[], None]
    ) -> None:
        extra: dict[str, Any] = {"machine": machine}
        is_last = metrics["epoch"] == config.epochs
        if "ms_per_image" in request.objectives and is_last and folder is not None:
            extra["ms_per_image"] = measure_ms_per_image(str(folder), request.data, device)
        stored = tune.Checkpoint(str(folder)) if folder is not None else None
        report = functools.partial(tune.report, {**metrics, **extra}, checkpoint=stored)
        patiently(report, request.storage, waiting)

    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssd_dist_"))
        resume = patiently(
            lambda: stack.enter_context(resumed_from(checkpoint, suggestion["resume"], safeguards)),
            request.storage,
        )
        try:
            train_and_report(
                config,
                request.data,
                report_epoch,
                device_type=device,
                scratch=Path(scratch),
                resume=resume,
                safeguards=safeguards,
            )
        except WorkerMemoryError as error:
            # A report and not an error: it would only run out of memory again.
            tune.report({"failed": str(error), "map_11pt": 0.0, "epoch": 0})


def store_whole(context: StorageContext, storage: str) -> None:
    """Has Ray Tune store a trial's checkpoints as Ray Train's workers store theirs: whole or not at
    all. Its own copying leaves half of one where the process is killed meanwhile.

    Args:
        context: the trial's, of Ray Tune.
        storage: the experiment's location, in which it stores.
    """

    def persist(checkpoint: tune.Checkpoint) -> tune.Checkpoint:
        path = context.checkpoint_fs_path
        store_checkpoint(Path(checkpoint.path), located(path, storage))
        return tune.Checkpoint(path, context.storage_filesystem)

    context.persist_current_checkpoint = persist  # type: ignore[method-assign,assignment]


def _train_nested(config: Config, suggestion: Mapping[str, Any], request: TrialRequest) -> None:
    # The workers may be on other nodes: what is named is where the trial itself runs.
    channel = _Channel(this_machine("cpu"))

    def trainer() -> TorchTrainer:
        return build_trainer(
            config,
            request.data,
            # The same name after a lost driver of the trial: Ray Train then goes on by itself.
            # After --resume another one: what the study knows is what counts.
            f"{RAY}/trial-{suggestion['number']:04d}-{tune.get_context().get_trial_id()}",
            request.cluster,
            request.safeguards(suggestion["number"]),
            num_workers=request.num_workers,
            resume=suggestion["resume"],
            callbacks=[channel],
        )

    try:
        stored = fit(trainer, request.storage).checkpoint
    except Exception as error:
        cause = root_cause(error, LESS_MEMORY)
        if not cause.startswith(WorkerMemoryError.__name__):
            raise
        channel.send({"failed": cause, "map_11pt": 0.0, "epoch": 0})
        return
    if "ms_per_image" not in request.objectives:
        return
    last = located(stored.path, request.storage) if stored is not None else suggestion["resume"]
    with local_copy(last) as folder:
        metrics = load_checkpoint(folder).metrics
    if metrics["epoch"] < config.epochs:  # it diverged
        return
    measure = ray.remote(measure_ms_per_image).options(
        num_cpus=1,
        num_gpus=worker_resources(request.cluster).get("GPU", 0),
        scheduling_strategy="DEFAULT",  # outside of the trial's own reservation, which is empty
    )
    milliseconds = ray.get(measure.remote(last, request.data, request.cluster.device))
    channel.send({**metrics, "ms_per_image": milliseconds})


class _Channel(TuneReportCallback):
    """Takes what Ray Train's first worker reports to Ray Tune, with the machine's name."""

    def __init__(self, machine: str) -> None:
        super().__init__()
        self._machine = machine

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Called by Ray Train after each report."""
        named = [{**metrics[0], "machine": self._machine}, *metrics[1:]]
        super().after_report(run_context, named, checkpoint)

    def send(self, metrics: dict[str, Any]) -> None:
        """A report of the trial's own. By the same queue: `tune.report` beside it can block."""
        queue = self._training_actor_item_queue
        queue.put(metrics)
        while not queue.empty():
            time.sleep(_POLL_INTERVAL_S)
        # Ray Tune's thread has it and passes it on; a trial that ends before is not waited for.
        time.sleep(_GRACE_S)
