"""What workers sum over all of them, and what they do while they wait for each other.

The quicker of two workers waits for the slower at the end of every step: on two cores a tenth of
the step, on average. What it has to do anyway it does meanwhile, see `wait_for`.
"""

# No `from __future__ import annotations`: DDP compares the hook's annotations with its types.
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


class DataParallel(DistributedDataParallel):
    """A model whose gradients are summed over all workers, ready to be trained.

    On a CPU they are whole once `under_way` has been waited for, after each backward pass. Batch
    norm's running statistics stay each worker's own: training does not read them.
    """

    def __init__(self, model: nn.Module) -> None:
        """`model`: the same on all workers but for its weights; those of worker 0 are taken."""
        super().__init__(model, gradient_as_bucket_view=True, forward_sync_buffers=False)
        self.under_way: list[dist.Work] = []
        """Sums that are not waited for yet."""
        self.register_comm_hook(self.under_way, begin_exchange)


def begin_exchange(under_way: list[dist.Work], bucket: dist.GradBucket) -> Future[Tensor]:
    """Begins to sum a `dist.GradBucket`, in which the gradients lie, over all workers.

    On a CPU it adds the work to `under_way` and says that it is done: DDP would block until it is.
    On a GPU nothing blocks, and DDP orders what comes after.
    """
    gradients = bucket.buffer()
    work = begin_sum(gradients)
    if gradients.is_cuda:
        summed: Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
        return summed
    under_way.append(work)
    done: Future[Tensor] = Future()
    done.set_result(gradients)
    return done


def wait_for(works: list[dist.Work], meanwhile: Callable[[], bool]) -> None:
    """Waits for all `works`, which it takes out, and calls `meanwhile`, which does a little of what
    is to be done later and returns whether there was anything, as long as they last. Raises what a
    work raises."""
    while works:
        work = works.pop(0)
        while not work.is_completed() and meanwhile():
            pass
        work.wait()


def begin_sum(values: Tensor) -> dist.Work:
    """Begins to sum `values` over all workers, in place."""
    work = dist.all_reduce(values, async_op=True)
    assert work is not None
    return work


def take_buffers_of_first(module: nn.Module) -> None:
    """Gives all workers the buffers of worker 0's `module`, those of a dtype together: one by one
    the 213 of SSDLite320 take two workers 106 ms, so 6."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(together, 0)
        parts = together.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))


def without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Meanwhile gradients stay with their worker."""
    return network.no_sync() if isinstance(network, DataParallel) else nullcontext()
