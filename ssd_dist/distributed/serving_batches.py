"""Pictures that wait together meet the network together.

Ray Serve's own `serve.batch` closes a batch as soon as its first picture has come, also while the
batch before it is still at work: under load nearly all of its batches are then of one picture. This
one closes a batch when the network is free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    since: float
    """Of the event loop's clock."""


class Batches(Generic[Item, Result]):
    """Gathers single items into batches for a function that takes one batch at a time."""

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], *, most: int, wait_s: float = 0.0
    ) -> None:
        """Only for use on one event loop.

        Args:
            work: items → a result each, in their order; called in a thread of its own, so that the
                event loop meanwhile takes in the next items.
            most: items in a batch.
            wait_s: what the first item of a batch waits for others, unless it is full before.
        """
        self._work, self._most, self._wait_s = work, most, wait_s
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._full = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Result:
        """The result of one item; raises what `work` raised for its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(_Waiting(item, future, loop.time()))
        if len(self._waiting) >= self._most:
            self._full.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work_all())
        return await future

    async def _work_all(self) -> None:
        """Batch after batch until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                left_s = self._waiting[0].since + self._wait_s - loop.time()
                if left_s > 0 and len(self._waiting) < self._most:
                    self._full.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), left_s)
                count = min(self._most, len(self._waiting))
                taken = [self._waiting.popleft() for _ in range(count)]
                # Who has gone away meanwhile is not worked for.
                batch = [one for one in taken if not one.future.done()]
                if not batch:
                    continue
                try:
                    results = await loop.run_in_executor(
                        self._thread, self._work, [one.item for one in batch]
                    )
                except Exception as error:
                    for one in batch:
                        if not one.future.done():
                            one.future.set_exception(error)
                else:
                    for one, result in zip(batch, results, strict=True):
                        if not one.future.done():
                            one.future.set_result(result)
        finally:
            self._working = None
