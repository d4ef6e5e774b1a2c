"""A detector over HTTP beside the same detector called directly: the same work, on one thread.

python benchmarks/serving.py --checkpoint runs/search/best_checkpoint --pictures VOC/JPEGImages

Decoding, resizing, the network and post-processing of encoded pictures, in batches of one size, by
turns: called in a process of its own, and asked of `jobs/serve.py` with one worker by as many
clients as keep it busy. Ends with status 1 if the service does less than 0.9 times as many pictures
a second, or if any request fails while as many are under way as the service admits.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import tyro
from job_runs import ROOT
from rich.console import Console
from rich.table import Table

NEEDED = 0.9
MAX_REQUESTS = 64
START_S = 300


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare a service with direct calls."""

    checkpoint: Path
    """Folder of a detector's checkpoint."""
    pictures: Path
    """Folder of JPEG files; the first 64 are asked about in turn."""
    batch_size: int = 4
    batch_wait_ms: float = 0.0
    turns: int = 5
    seconds: float = 10.0
    """Of each turn of each contender."""


@dataclass(frozen=True)
class Turn:
    """What was done in a turn."""

    pictures_per_s: float
    cpu_ms: float
    """Processor time of the process that holds the network, for a picture."""
    latencies_ms: np.ndarray


def direct(checkpoint: Path, contents: Sequence[bytes], pipe: Connection) -> None:
    """In a process of its own: takes (batch size, seconds), gives back a turn; ends at None."""
    from ssd_dist.checkpoint import load_checkpoint
    from ssd_dist.distributed.serving_inference import Decoded, PictureDetector

    detector = PictureDetector(load_checkpoint(checkpoint), "cpu", max_pixels=50_000_000)
    endless = itertools.cycle(contents)

    def decoded(content: bytes) -> Decoded:
        picture = detector.decode(content)
        assert isinstance(picture, Decoded), picture
        return picture

    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        batch_size, seconds = asked
        latencies: list[float] = []
        started, cpu = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) < started + seconds:
            detector.detect([decoded(next(endless)) for _ in range(batch_size)])
            latencies += [1000 * (time.perf_counter() - now)] * batch_size
        count = len(latencies)
        cpu_ms = 1000 * (time.process_time() - cpu) / count
        pipe.send(Turn(count / (time.perf_counter() - started), cpu_ms, np.array(latencies)))


@contextmanager
def service(arguments: Arguments, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Its address and the process of its worker."""
    log = folder / "serve.log"
    command = [
        sys.executable, str(ROOT / "jobs" / "serve.py"), "--checkpoint", str(arguments.checkpoint),
        "--port", "0", "--max-workers", "1", "--batch-size", str(arguments.batch_size),
        "--batch-wait-ms", str(arguments.batch_wait_ms), "--max-requests", str(MAX_REQUESTS),
    ]  # fmt: skip
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        end = time.monotonic() + START_S
        while not (found := re.search(r"Serving on (\S+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"jobs/serve.py did not start: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        below = psutil.Process(process.pid).children(recursive=True)
        [worker] = [one for one in below if "ServeReplica" in " ".join(one.cmdline())]
        yield found[1], worker
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


async def ask(
    url: str, contents: Sequence[bytes], num_clients: int, seconds: float, statuses: Counter[str]
) -> tuple[list[float], float]:
    """Latencies in milliseconds of so many clients that ask one picture after the other."""
    latencies: list[float] = []
    endless = itertools.cycle(contents)
    started = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=num_clients)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client() -> None:
            while (now := time.perf_counter()) < started + seconds:
                try:
                    async with session.post(f"{url}/detect", data=next(endless)) as response:
                        await response.read()
                        statuses[str(response.status)] += 1
                except aiohttp.ClientError as error:
                    statuses[type(error).__name__] += 1
                else:
                    latencies.append(1000 * (time.perf_counter() - now))

        await asyncio.gather(*(client() for _ in range(num_clients)))
    return latencies, time.perf_counter() - started


def served(
    url: str,
    worker: psutil.Process,
    contents: Sequence[bytes],
    num_clients: int,
    seconds: float,
    statuses: Counter[str],
) -> Turn:
    before = sum(worker.cpu_times()[:2])
    latencies, took = asyncio.run(ask(url, contents, num_clients, seconds, statuses))
    cpu_ms = 1000 * (sum(worker.cpu_times()[:2]) - before) / len(latencies)
    return Turn(len(latencies) / took, cpu_ms, np.array(latencies))


def row(table: Table, name: str, turns: Sequence[Turn], beside: Sequence[Turn]) -> float:
    """One line; returns the pictures a second, times those beside, in the median of the turns."""
    pairs = list(zip(turns, beside, strict=True))
    ratio = statistics.median(one.pictures_per_s / other.pictures_per_s for one, other in pairs)
    cpu = statistics.median(one.cpu_ms / other.cpu_ms for one, other in pairs)
    latencies = np.concatenate([one.latencies_ms for one in turns])
    p50, p99 = np.percentile(latencies, [50, 99])
    table.add_row(
        name,
        f"{statistics.median(one.pictures_per_s for one in turns):.2f}",
        f"{ratio:.3f}",
        f"{statistics.median(one.cpu_ms for one in turns):.1f}",
        f"{cpu:.3f}",
        f"{p50:.0f}",
        f"{p99:.0f}",
    )
    return ratio


def main(arguments: Arguments) -> int:
    paths = sorted(arguments.pictures.glob("*.jpg"))[:64]
    if not paths:
        sys.exit(f"no .jpg in {arguments.pictures}")
    contents = [path.read_bytes() for path in paths]
    size, seconds = arguments.batch_size, arguments.seconds
    names = ("directly, alone", "served, 1 client", f"directly, batches of {size}",
             f"served, {2 * size} clients")  # fmt: skip
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    statuses: Counter[str] = Counter()
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=direct, args=(arguments.checkpoint, contents, there)
    )
    process.start()
    with (
        tempfile.TemporaryDirectory() as folder,
        service(arguments, Path(folder)) as (url, worker),
    ):
        here.recv()
        asyncio.run(ask(url, contents, 2 * size, 2.0, Counter()))
        for _ in range(arguments.turns):
            for name, batch, clients in (
                (names[0], 1, None), (names[1], None, 1), (names[2], size, None),
                (names[3], None, 2 * size),
            ):  # fmt: skip
                if clients is None:
                    here.send((batch, seconds))
                    turns[name].append(here.recv())
                else:
                    turns[name].append(served(url, worker, contents, clients, seconds, statuses))
        at_bound: Counter[str] = Counter()
        asyncio.run(ask(url, contents, MAX_REQUESTS, seconds, at_bound))
        beyond: Counter[str] = Counter()
        asyncio.run(ask(url, contents, 2 * MAX_REQUESTS, 2.0, beyond))
    here.send(None)
    process.join()

    table = Table(title=f"{arguments.turns} turns of {seconds:g} s each, medians")
    for column in ("", "pictures/s", "times directly", "CPU ms", "times directly", "p50 ms", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    row(table, names[0], turns[names[0]], turns[names[0]])
    row(table, names[1], turns[names[1]], turns[names[0]])
    row(table, names[2], turns[names[2]], turns[names[2]])
    ratio = row(table, names[3], turns[names[3]], turns[names[2]])
    console = Console()
    console.print(table)
    failed = sum(count for status, count in (statuses + at_bound).items() if status != "200")
    refused, wrong = beyond["429"], sum(beyond.values()) - beyond["200"] - beyond["429"]
    console.print(
        f"{MAX_REQUESTS} at a time, as many as are admitted: {at_bound['200']} answered, {failed} "
        f"failed; {2 * MAX_REQUESTS} at a time: {beyond['200']} answered, {refused} refused (429), "
        f"{wrong} failed"
    )
    return int(ratio < NEEDED or failed > 0 or wrong > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
