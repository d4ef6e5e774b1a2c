"""Workers that wait for each other without an actor."""

import torch.distributed as dist
from ray.train.v2._internal.execution.worker_group import state, worker_group
from torch import multiprocessing

from ssd_dist.distributed import lone_synchronisation
from ssd_dist.distributed.lone_synchronisation import Synchronisation, no_synchronisation_actor


def agree(rank, folder, results):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    lone_synchronisation.ray.put = lambda value: value  # there is no Ray here
    handle = Synchronisation.options(label_selector={}).remote(timeout_s=1, warn_interval_s=1)
    for epoch in range(3):
        said = handle.broadcast_from_rank_zero.remote(
            world_rank=rank,
            world_size=2,
            data=f"checkpoint {epoch} of {rank}",
            caller_method_name="ray.train.report",
            collective_seq=epoch,
            relaxable=True,
        )
        results.put((rank, epoch, said))
    dist.destroy_process_group()


def test_all_get_what_the_first_says(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    multiprocessing.start_processes(agree, (str(tmp_path), results), nprocs=2)
    found = sorted(results.get() for _ in range(6))
    assert found == [(r, e, f"checkpoint {e} of 0") for r in range(2) for e in range(3)]


def test_a_lone_worker_needs_nobody(monkeypatch):
    monkeypatch.setattr(lone_synchronisation.ray, "put", lambda value: value)
    handle = Synchronisation()
    assert handle.broadcast_from_rank_zero.remote(world_size=1, data="it", world_rank=0) == "it"


def test_ray_s_own_is_back_afterwards():
    before = worker_group.SynchronizationActor, state._shutdown_sync_actor
    with no_synchronisation_actor():
        assert worker_group.SynchronizationActor is Synchronisation
        state._shutdown_sync_actor(Synchronisation())
    assert before == (worker_group.SynchronizationActor, state._shutdown_sync_actor)
