"""How a service ends, as its clients see it on real sockets."""

import asyncio
import contextlib
import threading

import httpx
import pytest
from served import Worker, application, running

from ssd_dist.distributed import serving_end


class SlowWorker(Worker):
    """Answers once `go` is set."""

    def __init__(self):
        super().__init__()
        self.started, self.go = threading.Event(), threading.Event()

    async def detect(self, content):
        self.started.set()
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        return await super().detect(content)


async def _until(event):
    assert await asyncio.to_thread(event.wait, 10)


def test_what_is_under_way_is_answered_and_what_comes_after_is_refused():
    worker, ending = SlowWorker(), threading.Event()

    async def ask(server, url):
        limits = httpx.Limits(max_keepalive_connections=4)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20) as client:
            # Two connections that are kept alive, and one request under way.
            idle = [await client.get("/healthz") for _ in range(2)]
            under_way = asyncio.create_task(client.post("/detect", content=b"picture"))
            await _until(worker.started)
            server.should_exit = True
            await _until(ending)
            late = [await client.post("/detect", content=b"x" * 1_000_000) for _ in range(3)]
            health = await client.get("/healthz")
            worker.go.set()
            answered = await under_way
            await asyncio.sleep(1.5)
            with pytest.raises(httpx.ConnectError):
                await client.get("/healthz")
        return idle, late, health, answered

    with running(application(worker, ending=ending), ending) as (server, url):
        idle, late, health, answered = asyncio.run(ask(server, url))

    assert [one.status_code for one in idle] == [200, 200]
    assert "connection" not in idle[0].headers
    for one in (*late, health):
        assert one.status_code == 503
        assert one.json() == {"detail": "this service is ending"}
        assert one.headers["retry-after"] == "1"
        assert one.headers["connection"] == "close"
    assert answered.status_code == 200
    assert answered.headers["connection"] == "close"
    assert len(worker.contents) == 1


def test_a_client_that_never_stops_asking_does_not_keep_the_service(monkeypatch):
    monkeypatch.setattr(serving_end, "_MOST_S", 1.0)
    ending, refused = threading.Event(), []

    async def hammer(server, url):
        server.should_exit = True
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    refused.append((await client.get("/healthz")).status_code)

    with running(application(Worker(), ending=ending), ending) as (server, url):
        asyncio.run(asyncio.wait_for(hammer(server, url), timeout=25))
    assert 503 in refused
