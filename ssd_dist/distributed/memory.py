"""Workers that ran out of memory."""

from __future__ import annotations

import torch

from ssd_dist.config import Config
from ssd_dist.engine import Worker

_SYMPTOMS = (
    "out of memory",  # CUDA's
    "can't allocate memory",  # torch's of a CPU
    "not enough memory",
)


LESS_MEMORY = "raise accumulation, lower global_batch_size or model.image_size"
"""What a training whose memory does not suffice is advised to do."""


class WorkerMemoryError(RuntimeError):
    """A worker ran out of memory; the message says with what, and what helps."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is for lack of memory, of a GPU or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in _SYMPTOMS)


def memory_error(error: BaseException, config: Config, worker: Worker) -> WorkerMemoryError:
    """The same error in one sentence."""
    first = next(iter(str(error).splitlines()), "")
    detail = f" ({first.strip()})" if first else ""
    return WorkerMemoryError(
        f"out of memory with {config.global_batch_size} pictures of {config.model.image_size} "
        f"pixels a step over {worker.world_size} worker(s){detail}: {LESS_MEMORY}, "
        "or take more workers"
    )
