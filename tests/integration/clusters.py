"""Ray clusters of the tests' own: own ports, folder and token; ended by their processes' ids.

Several nodes on one machine are several raylets, each with the resources that it is told to have.
"""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from running import RAY, ROOT, wait_until

_BLOCKS = itertools.count()
_PORTS_PER_NODE = 50


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
        """Every process of this Ray."""
        return [p for node in (self.head, *self.nodes) for p in _descendants(node)]

    def named(self, title: str) -> list[psutil.Process]:
        """The processes whose title contains `title`, such as `ray::RayTrainWorker`."""
        return [process for process in self.processes() if title in _title(process)]

    def ray(self, *arguments: str) -> str:
        """What `ray <arguments>` prints."""
        done = subprocess.run(
            [str(RAY), *arguments], env=self.environment, cwd=ROOT, capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
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
        wait_until(lambda: self.num_nodes() > joined, 60, log.read_text)
        return node

    def num_nodes(self) -> int:
        """Nodes alive, the head included."""
        return self.ray("list", "nodes", "--filter", "state=ALIVE").count("ALIVE")

    def kill_node(self, node: psutil.Process) -> None:
        """kill -9 of all that runs on it, as when its power is cut."""
        self.nodes.remove(node)
        _kill([node])


@contextlib.contextmanager
def start_ray(
    environment: dict[str, str],
    *,
    num_cpus: int = 2,
    num_gpus: int = 0,
    autoscaling: Path | None = None,
) -> Iterator[RayServer]:
    """A head with the resources named; `autoscaling` is a configuration of Ray's autoscaler."""
    # Ray's sockets have to fit into 107 characters, so not below pytest's own folders.
    folder = Path("/tmp") / f"ssd_dist_ray_{os.getpid()}_{next(_BLOCKS)}"
    folder.mkdir()
    log = folder / "head.log"
    gcs, dashboard, client = _free_ports(3)
    command = [
        str(RAY), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={folder}",
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
        wait_until(lambda: _answers(address, environment), 90, log.read_text)
        wait_until(lambda: _listens(dashboard), 60, log.read_text)
        yield server
    finally:
        _kill([*server.nodes, server.head])
        shutil.rmtree(folder, ignore_errors=True)


def _common_flags() -> list[str]:
    low = 20000 + (os.getpid() % 20 * 8 + next(_BLOCKS) % 8) * _PORTS_PER_NODE
    return [
        "--object-store-memory=200000000", f"--min-worker-port={low}",
        f"--max-worker-port={low + _PORTS_PER_NODE - 1}", "--disable-usage-stats",
    ]  # fmt: skip


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(roots: list[psutil.Process]) -> None:
    doomed = [process for root in roots for process in (*_descendants(root), root)]
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=20)


def _answers(address: str, environment: dict[str, str]) -> bool:
    command = [str(RAY), "status", f"--address={address}"]
    return (
        subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
