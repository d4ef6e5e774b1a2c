"""A worker as torch sees it."""

import pytest
import torch

from ssd_dist.distributed.worker import this_worker


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("granted", "threads"),
    [("", 1), ("2", 2), (" 2 ", 2), ("2,1", 2), ("0", 1), ("many", 1), ("-2", 1), (None, 1)],
)
def test_it_takes_the_threads_that_it_was_granted(granted, threads, monkeypatch):
    torch.set_num_threads(3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if granted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", granted)
    worker = this_worker("cpu")
    assert (worker.rank, worker.world_size, worker.device) == (0, 1, torch.device("cpu"))
    assert torch.get_num_threads() == threads
