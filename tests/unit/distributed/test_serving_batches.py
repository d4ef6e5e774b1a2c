import asyncio
import threading

import pytest

from ssd_dist.distributed.serving_batches import Batches


class Doubling:
    """Doubles numbers, and remembers the batches; holds the first one until `go` is set."""

    def __init__(self, *, hold: bool = False):
        self.batches: list[list[int]] = []
        self.started, self.go = threading.Event(), threading.Event()
        if not hold:
            self.go.set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.started.set()
        assert self.go.wait(10)
        return [2 * item for item in items]


async def _asked_while_the_first_is_at_work(batches, work, count):
    first = asyncio.create_task(batches.ask(0))
    assert await asyncio.to_thread(work.started.wait, 10)
    rest = [asyncio.create_task(batches.ask(item)) for item in range(1, count)]
    await asyncio.sleep(0)  # all of them are in line now
    return first, rest


def test_what_waits_while_a_batch_is_at_work_is_one_batch():
    async def run():
        work = Doubling(hold=True)
        first, rest = await _asked_while_the_first_is_at_work(Batches(work, most=4), work, 8)
        work.go.set()
        assert await asyncio.gather(first, *rest) == [2 * item for item in range(8)]
        return work.batches

    assert asyncio.run(run()) == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_item_alone_waits_for_nobody():
    async def run():
        work = Doubling()
        batches = Batches(work, most=4)
        assert [await batches.ask(item) for item in range(3)] == [0, 2, 4]
        return work.batches

    assert asyncio.run(run()) == [[0], [1], [2]]


def test_the_first_waits_for_others_until_the_batch_is_full():
    async def run():
        work = Doubling()
        batches = Batches(work, most=3, wait_s=60)

        async def later(item):
            await asyncio.sleep(0.01 * item)
            return await batches.ask(item)

        # Sixty seconds would pass if a full batch did not go at once.
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(later(item) for item in range(3))) == [0, 2, 4]
        return work.batches

    assert asyncio.run(run()) == [[0, 1, 2]]


def test_the_first_waits_no_longer_than_asked():
    async def run():
        work = Doubling()
        async with asyncio.timeout(20):
            assert await Batches(work, most=3, wait_s=0.01).ask(5) == 10
        return work.batches

    assert asyncio.run(run()) == [[5]]


def test_what_it_waited_for_the_network_counts():
    wait_s = 2.0

    async def run():
        work = Doubling(hold=True)
        batches = Batches(work, most=2, wait_s=wait_s)
        full = [asyncio.create_task(batches.ask(item)) for item in range(2)]
        third = asyncio.create_task(batches.ask(2))
        await asyncio.sleep(wait_s)
        work.go.set()
        async with asyncio.timeout(0.75 * wait_s):
            assert await asyncio.gather(*full, third) == [0, 2, 4]
        return work.batches

    assert asyncio.run(run()) == [[0, 1], [2]]


def test_who_has_gone_away_is_not_worked_for():
    async def run():
        work = Doubling(hold=True)
        first, rest = await _asked_while_the_first_is_at_work(Batches(work, most=4), work, 4)
        rest[1].cancel()
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(first, rest[0], rest[2]) == [0, 2, 6]
        return work.batches

    assert asyncio.run(run()) == [[0], [1, 3]]


def test_an_error_reaches_all_of_its_batch_and_nobody_else():
    def work(items):
        if 1 in items:
            raise ValueError("no ones")
        return items

    async def run():
        batches = Batches(work, most=2)
        assert await batches.ask(0) == 0
        answers = await asyncio.gather(batches.ask(1), batches.ask(2), return_exceptions=True)
        assert await batches.ask(3) == 3
        return answers

    one, two = asyncio.run(run())
    for error in (one, two):
        with pytest.raises(ValueError, match="no ones"):
            raise error
