"""Who waits for others works ahead; gradients are summed, and whole after the wait."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ssd_dist.exchange import DataParallel, begin_sum, wait_for, without_exchange


class Work:
    """Done after it was asked so many times."""

    def __init__(self, asked, error=None):
        self.asked, self.error, self.waited = asked, error, False

    def is_completed(self):
        self.asked -= 1
        return self.asked < 0

    def wait(self):
        self.waited = True
        if self.error is not None:
            raise self.error


def test_work_is_done_ahead_as_long_as_others_are_waited_for():
    works, done = [Work(3), Work(2)], []
    wait_for(works.copy(), lambda: done.append(1) or True)
    assert len(done) == 5
    assert all(work.waited for work in works)


def test_with_nothing_left_to_do_it_just_waits():
    work, left = Work(100), [True, True, False]
    wait_for([work], lambda: left.pop(0))
    assert (left, work.waited) == ([], True)


def test_what_a_sum_raises_is_raised():
    with pytest.raises(RuntimeError, match="peer is gone"):
        wait_for([Work(0, RuntimeError("peer is gone"))], lambda: False)


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_gradients_are_whole_once_the_exchange_is_finished(alone):
    torch.manual_seed(0)
    model, image = nn.Linear(4, 3), torch.randn(2, 4)
    expected = torch.autograd.grad(model(image).square().sum(), list(model.parameters()))
    network = DataParallel(model)
    for _ in range(3):  # DDP orders its buckets anew after the first
        network(image).square().sum().backward()
        wait_for(network.under_way, lambda: False)
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, gradient)
        model.zero_grad(set_to_none=True)


def test_without_exchange_there_is_nothing_to_wait_for(alone):
    model, image = nn.Linear(4, 3), torch.randn(2, 4)
    network = DataParallel(model)
    with without_exchange(network):
        network(image).sum().backward()
    wait_for(network.under_way, lambda: pytest.fail("nobody is waited for"))
    network(image).sum().backward()
    wait_for(network.under_way, lambda: False)
    assert torch.allclose(model.weight.grad, 2 * image.sum(0).expand(3, 4))


def test_a_sum_is_in_place(alone):
    values = torch.tensor([1.0, 2.0])
    wait_for([begin_sum(values)], lambda: False)
    assert values.tolist() == [1.0, 2.0]
