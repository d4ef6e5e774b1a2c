"""The process group of a training's workers, listening where Ray itself does.

Ray Train's own opens torch's store, which asks nobody for a password, on every interface of the
machine. This one opens it at the address by which Ray knows the node: 127.0.0.1 for a Ray that a
job started.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

from ssd_dist.loopback import is_loopback, keep_on_loopback

_stores: list[dist.TCPStore] = []
"""The one that this process serves until its group takes it."""


@dataclass
class NodeTorchConfig(TorchConfig):
    """As Ray Train's, but for where the store listens."""

    @property
    def backend_cls(self) -> type:
        """What sets the group up."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by Ray Train once the workers are there."""
        on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        worker_group.execute(_set_torch_distributed_env_vars)
        address, port = worker_group.execute_single(0, _serve_store)
        joining = [
            worker_group.execute_single_async(
                rank,
                _join,
                address=address,
                port=port,
                backend="nccl" if on_gpus else "gloo",
                group_rank=rank,
                world_size=len(worker_group),
                timeout=timedelta(seconds=backend_config.timeout_s),
            )
            for rank in range(len(worker_group))
        ]
        ray.get(joining)


def _serve_store() -> tuple[str, int]:
    """Opens the store on worker 0's node; returns its address."""
    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family)
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    _stores[:] = [store]
    return address, port


def _join(
    address: str, port: int, backend: str, group_rank: int, world_size: int, timeout: timedelta
) -> None:
    if is_loopback(ray.util.get_node_ip_address()):
        keep_on_loopback()
    if group_rank == 0:
        store = _stores.pop()
    else:
        store = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    store.set_timeout(timeout)
    dist.init_process_group(
        backend, store=store, rank=group_rank, world_size=world_size, timeout=timeout
    )
