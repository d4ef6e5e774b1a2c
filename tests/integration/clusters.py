"""Ray clusters of the tests' own: own ports, folder and token; ended by their processes' ids.

Several nodes on one machine are several raylets, each with the resources that it is told to have.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ports import free_ports
from running import RAY, ROOT, wait_until

_BLOCKS = itertools.count()
_PORTS_PER_NODE = 50
_MARK = "SSD_DIST_TEST_RAY"
"""Environment variable of every process of a Ray of the tests, and of the jobs that talk to it."""


@dataclass(frozen=True)
class RayServer:
    """A Ray head and the nodes that joined it, and how to reach it."""

    environment: dict[str, str]
    """With RAY_ADDRESS."""
    dashboard: str
    head: psutil.Process
    folder: Path
    nodes: list[psutil.Process] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        """Every process of this Ray and of its jobs, those without a parent as well."""
        return [p for p in psutil.process_iter() if _mark(p) == self.environment[_MARK]]

    def named(self, title: str) -> list[psutil.Process]:
        """The processes whose title contains `title`, such as `ray::RayTrainWorker`."""
        return [process for process in self.processes() if title in title_of(process)]

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """What `ray list <kind>` shows: `nodes`, `actors`, `placement-groups`."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"{self.dashboard}/api/v0/{kind.replace('-', '_')}?limit=1000&detail=true",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]["result"]["result"]

    def ray(self, *arguments: object) -> str:
        """What `ray <arguments>` prints, on both streams, once it has ended well."""
        done = subprocess.run(
            [str(RAY), *map(str, arguments)], cwd=ROOT, text=True, check=False, timeout=400,
            env={**self.environment, "RAY_API_SERVER_ADDRESS": self.dashboard},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def add_node(
        self, num_cpus: int, num_gpus: int = 0, prefix: Sequence[str] = ()
    ) -> psutil.Process:
        """A further node, once it has joined; `prefix` is a command that runs it, like `env`."""
        log = self.folder / f"node_{len(self.nodes)}.log"
        joined = self.num_nodes()
        command = [
            *prefix, str(RAY), "start", "--block", f"--address={self.environment['RAY_ADDRESS']}",
            f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", *_common_flags(),
        ]  # fmt: skip
        with log.open("w") as output:
            started = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, cwd=ROOT
            )
        node = psutil.Process(started.pid)
        self.nodes.append(node)
        wait_until(lambda: self.num_nodes() > joined, 90, log.read_text)
        return node

    def num_nodes(self) -> int:
        """Nodes alive, the head included."""
        return sum(node["state"] == "ALIVE" for node in self.listed("nodes"))

    def kill_node(self, node: psutil.Process) -> None:
        """kill -9 of all that runs on it, as when its power is cut."""
        self.nodes.remove(node)
        _kill([*_descendants(node), node])


@contextlib.contextmanager
def start_ray(
    environment: dict[str, str],
    *,
    num_cpus: int = 2,
    num_gpus: int = 0,
    autoscaling: Path | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[RayServer]:
    """A head with the resources named; `autoscaling` is a configuration of Ray's autoscaler;
    `prefix` as in `add_node`."""
    # Ray's sockets have to fit into 107 characters, so not below pytest's own folders.
    folder = Path("/tmp") / f"ssd_dist_ray_{os.getpid()}_{next(_BLOCKS)}"
    folder.mkdir()
    log = folder / "head.log"
    environment = {**environment, _MARK: folder.name}
    gcs, dashboard, client = free_ports(3)
    command = [
        *prefix, str(RAY), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={folder}",
        f"--dashboard-port={dashboard}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}",
        f"--ray-client-server-port={client}", *_common_flags(),
    ]  # fmt: skip
    if autoscaling is not None:
        text = autoscaling.read_text().replace("GCS_ADDRESS", f"127.0.0.1:{gcs}")
        autoscaling.write_text(text)
        command.append(f"--autoscaling-config={autoscaling}")
    with log.open("w") as output:
        started = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=ROOT)
    address = f"127.0.0.1:{gcs}"
    server = RayServer(
        environment={**environment, "RAY_ADDRESS": address},
        dashboard=f"http://127.0.0.1:{dashboard}",
        head=psutil.Process(started.pid),
        folder=folder,
    )
    try:
        wait_until(lambda: _is_up(server), 120, log.read_text)
        yield server
    finally:
        # Twice: what was started meanwhile.
        for _ in range(2):
            _kill(server.processes())
        shutil.rmtree(folder, ignore_errors=True)


def _common_flags() -> list[str]:
    low = 20000 + (os.getpid() % 20 * 8 + next(_BLOCKS) % 8) * _PORTS_PER_NODE
    return [
        "--object-store-memory=200000000", f"--min-worker-port={low}",
        f"--max-worker-port={low + _PORTS_PER_NODE - 1}", "--disable-usage-stats",
        "--dashboard-agent-listen-port=0",  # else the same for every Ray of the machine
    ]  # fmt: skip


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def title_of(process: psutil.Process) -> str:
    """How it appears in `ps`; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):
        return None


def _kill(doomed: list[psutil.Process]) -> None:
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=20)


def _is_up(server: RayServer) -> bool:
    try:
        return server.num_nodes() == 1
    except OSError:
        return False
