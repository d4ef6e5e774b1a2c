"""The loop of a Ray Train worker: between Ray Train and a training.

Apart from the driver's part in train.py, so that a worker imports no more than it needs.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray.train import Checkpoint, get_checkpoint, get_context, report

from ssd_dist.config import from_mapping
from ssd_dist.distributed.buckets import below, local_copy, open_location
from ssd_dist.distributed.interrupted import newest, store_checkpoint
from ssd_dist.distributed.own_core import own_core
from ssd_dist.distributed.patience import patiently
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.worker import train_and_report


def train_worker(request: dict[str, Any]) -> None:
    """The loop of one Ray Train worker.

    `request`: see `build_trainer`. Ray Train's controller unpacks it as well, so it holds nothing
    that would have it import torch.
    """
    ray_checkpoint = get_checkpoint()
    context, progress = get_context(), request["progress"]
    safeguards = Safeguards(**request["safeguards"])

    def report_epoch(
        metrics: dict[str, Any], folder: Path | None, waiting: Callable[[], None]
    ) -> None:
        def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
            location, source = below(request["run"], name), Path(checkpoint.path)
            patiently(lambda: store_checkpoint(source, location), safeguards.storage, waiting)
            filesystem, path = open_location(location)
            return Checkpoint(path, filesystem)

        stored = Checkpoint(str(folder)) if folder is not None else None
        report(metrics, checkpoint=stored, checkpoint_upload_fn=upload)

    with contextlib.ExitStack() as stack:
        config = from_mapping(request["config"])
        # Loader processes would inherit the core, and work on it beside the training.
        if (
            request["alone"]
            and request["device_type"] == "cpu"
            and not config.data.num_loader_processes
        ):
            stack.enter_context(own_core(context.get_local_rank(), context.get_local_world_size()))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssd_dist_"))
        resume = patiently(
            lambda: stack.enter_context(
                resumed_from(ray_checkpoint, request["resume"], safeguards)
            ),
            safeguards.storage,
        )
        if progress is not None and context.get_world_rank() == 0:
            resumed = resume is not None
            progress.push_start(context.get_world_size(), resumed=resumed)
        train_and_report(
            config,
            request["data"],
            report_epoch,
            device_type=request["device_type"],
            scratch=Path(scratch),
            resume=resume,
            safeguards=safeguards,
            progress=progress,
        )


@contextlib.contextmanager
def resumed_from(
    checkpoint: Checkpoint | None, location: str | None, safeguards: Safeguards
) -> Iterator[Path | None]:
    """A folder of this machine with the checkpoint to go on from; None if there is none.

    Args:
        checkpoint: Ray's own last one, after a lost worker: newer than what a driver knew of.
        location: of the one that an earlier driver left.
        safeguards: tell where an interrupted epoch's state would be, which is newer than both.
    """
    with contextlib.ExitStack() as stack:
        regular = None
        if checkpoint is not None:
            regular = Path(stack.enter_context(checkpoint.as_directory()))
        elif location is not None:
            regular = stack.enter_context(local_copy(location))
        yield stack.enter_context(newest(regular, safeguards.interrupted))
