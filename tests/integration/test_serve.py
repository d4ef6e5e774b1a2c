"""A detector as a service, as its clients see it: under load, when a worker dies, at its end."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections import Counter

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from running import kill, run_job, start_job, wait_until

MAX_REQUESTS = 12


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "noise.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@contextlib.contextmanager
def serving(checkpoint, server, folder, *arguments):
    """The job on the tests' Ray, once it answers: its process, address and log."""
    log = folder / "serve.log"
    process = start_job(
        "serve.py", "--checkpoint", checkpoint, "--port", 0, "--max-workers", 1,
        "--max-requests", MAX_REQUESTS, *arguments, env=server.environment, log=log,
    )  # fmt: skip
    try:
        wait_until(
            lambda: "Serving on" in log.read_text() or process.poll() is not None,
            240,
            log.read_text,
        )
        found = re.search(r"Serving on (\S+)", log.read_text())
        assert found, log.read_text()
        yield process, found[1], log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=120)
            except Exception:
                kill(process)


async def crowd(url, content, num_clients, num_each, after_first=None, until_refused=False):
    """Statuses of what each of so many clients asks, one after the other; `until_refused`: a client
    who is told that the service can't answer asks no more."""
    seen = Counter()
    limits = httpx.Limits(max_connections=num_clients, max_keepalive_connections=num_clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:

        async def one():
            for _ in range(num_each):
                try:
                    came = (await client.post(f"{url}/detect", content=content)).status_code
                except httpx.ConnectError:
                    came = "not let in"
                except httpx.TransportError as error:
                    came = type(error).__name__
                seen[came] += 1
                if after_first is not None and sum(seen.values()) == num_clients:
                    after_first()
                if until_refused and came != 200:
                    break

        await asyncio.gather(*(one() for _ in range(num_clients)))
    return seen


def test_under_load_when_a_worker_dies_and_at_its_end(
    random_checkpoint,
    ray_server,
    picture,
    tmp_path,
):
    with serving(random_checkpoint, ray_server, tmp_path) as (process, url, log):
        found = httpx.post(f"{url}/detect?score_threshold=0", content=picture, timeout=60).json()
        assert (found["width"], found["height"]) == (160, 120)
        assert found["detections"]
        for one in found["detections"]:
            left, top, right, bottom = one["box"]
            assert 0 <= left < right <= 160
            assert 0 <= top < bottom <= 120
        assert httpx.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}

        # At the bound none fails; beyond it some are refused, and none fails.
        assert asyncio.run(crowd(url, picture, MAX_REQUESTS, 10)) == {200: 10 * MAX_REQUESTS}
        beyond = asyncio.run(crowd(url, picture, 3 * MAX_REQUESTS, 5))
        assert set(beyond) <= {200, 429}
        assert beyond[200] >= MAX_REQUESTS
        batches = httpx.get(f"{url}/metrics", timeout=60).text
        assert 'ssd_dist_requests_total{status="200"}' in batches

        # Requests that are under way when the worker is killed are asked of the next one.
        def kill_worker():
            for worker in ray_server.named("ServeReplica"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

        assert set(asyncio.run(crowd(url, picture, 4, 10, kill_worker))) <= {200, 503}

        # What was let in before SIGTERM is answered, what comes after is told; nothing breaks off.
        def terminate():
            os.kill(process.pid, signal.SIGTERM)

        at_end = asyncio.run(crowd(url, picture, MAX_REQUESTS, 20, terminate, until_refused=True))
        assert set(at_end) <= {200, 503, "not let in"}
        assert at_end[200] >= MAX_REQUESTS
        assert process.wait(timeout=120) == 0
        assert "answered all that was under way" in log.read_text()
    wait_until(lambda: not ray_server.named("ServeReplica"), 60, lambda: "a worker is left")


def test_a_service_that_was_killed_leaves_no_worker(
    random_checkpoint,
    ray_server,
    tmp_path,
):
    with serving(random_checkpoint, ray_server, tmp_path) as (process, _, _):
        assert ray_server.named("ServeReplica")
        kill(process)
        wait_until(lambda: not ray_server.named("ServeReplica"), 120, lambda: "a worker is left")


def test_the_token_is_asked_for_and_told_nowhere(
    random_checkpoint,
    ray_server,
    picture,
    tmp_path,
):
    path = tmp_path / "token"
    with serving(random_checkpoint, ray_server, tmp_path, "--token-file", path) as (_, url, log):
        token = path.read_text().strip()
        assert httpx.post(f"{url}/detect", content=picture, timeout=60).status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{url}/detect", content=picture, headers=bearer, timeout=60)
        assert answer.status_code == 200
        told = [log, *ray_server.folder.rglob("*.log"), *ray_server.folder.rglob("*.out")]
        assert not [file for file in told if file.is_file() and token in file.read_text("latin-1")]


def test_what_can_never_be_served_is_refused(random_checkpoint, ray_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, told in (
            (("--host", "0.0.0.0"), "give --token-file"),
            (("--port", port), f"can't listen on 127.0.0.1, port {port}"),
            (("--max-bytes", 0), "--max-bytes must be above 0"),
            (("--port", 0, "--max-workers", 64), "64 workers need 64 CPU cores"),
            (("--port", 0, "--min-workers", 9), "--min-workers must be at most"),
        ):
            done = run_job(
                "serve.py", "--checkpoint", random_checkpoint, *arguments,
                env=ray_server.environment, timeout=240,
            )  # fmt: skip
            assert done.returncode == 1, done.stdout
            [line] = done.stderr.strip().splitlines()
            assert told in line
