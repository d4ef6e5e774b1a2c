"""The process group of a training's workers, listening where Ray itself does.

Ray Train's own opens torch's store, which asks nobody for a password, on every interface of the
machine. This one opens it at the address by which Ray knows the node: 127.0.0.1 for a Ray that a
job started.

Whoever starts workers reads this module, and has no use for torch: Ray Train's controller, mostly a
process of its own, and a job that starts them while another thread imports torch. To import it here
would make every training start seconds later, so only what runs in a worker does.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import BackendConfig
from ray.train.backend import Backend

from ssd_dist.importing import importing
from ssd_dist.loopback import is_loopback, keep_on_loopback

if TYPE_CHECKING:
    import torch.distributed as dist

_LEAVE_S = 5.0
"""How long workers are given to leave the group before they are ended."""
_stores: list[dist.TCPStore] = []
"""The one that this process serves until its group takes it."""


@dataclass
class NodeTorchConfig(BackendConfig):
    """As Ray Train's TorchConfig, but for where the store listens, and when torch is imported."""

    backend: str | None = None
    timeout_s: int = 1800
    """Of a collective operation."""

    @property
    def backend_cls(self) -> type:
        """What sets the group up."""
        return _Backend

    @property
    def train_func_context(self) -> Any:
        """What a worker's loop runs in: its GPU is the current one."""
        from ray.train.torch import TorchConfig

        return TorchConfig().train_func_context


class _Backend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by Ray Train once the workers are there."""
        worker_group.execute(import_training)
        address, port = worker_group.execute_single(0, _serve_store)
        joining = [
            worker_group.execute_single_async(
                rank,
                _join,
                address=address,
                port=port,
                backend=backend_config.backend,
                group_rank=rank,
                world_size=len(worker_group),
                timeout=timedelta(seconds=backend_config.timeout_s),
            )
            for rank in range(len(worker_group))
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, _: Any) -> None:
        """Called by Ray Train before it ends the workers. One that hangs, or is gone, does not
        keep the others."""
        with contextlib.suppress(GetTimeoutError, RayActorError):
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_S)


def import_training() -> None:
    """What the loop needs; in all workers at once, or it would be waited for one by one."""
    with importing():
        import ssd_dist.distributed.train_worker  # noqa: F401


def _serve_store() -> tuple[str, int]:
    """Opens the store on worker 0's node; returns its address."""
    import torch.distributed as dist

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
    import torch.distributed as dist

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


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.destroy_process_group()
