"""The project's own training loop without Ray, for workers.py: one process of a torchrun group.

torchrun --standalone --nproc-per-node 2 benchmarks/torchrun_loop.py CONFIG.yaml DATA

Prints every epoch's pictures a second as it ends.
"""

from __future__ import annotations

import sys
import warnings

import torch
import torch.distributed as dist

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import load_config
from ssd_dist.engine import Worker
from ssd_dist.training import EpochReport, train


def main(config_file: str, data: str) -> None:
    """Trains as a Ray worker does, but for what Ray adds: reports and stored checkpoints."""
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    keep_freed_memory()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    worker = Worker(torch.device("cpu"), dist.get_rank(), dist.get_world_size())

    def tell(epoch: EpochReport) -> None:
        if worker.rank == 0:
            print("epoch", epoch.metrics["images_per_second"], flush=True)

    train(load_config(config_file), data, worker, tell)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
