"""Faults, and the jobs that they are done to: for the tests of faults and for chaos.

Each fault is the real thing: signals to processes, a disk that is really full or read-only.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from clusters import RayServer, title_of
from outcomes import checkpoints
from running import ROOT, wait_until

WORKERS = {"train.py": "ray::RayTrainWorker", "tune.py": "ray::ImplicitFunc"}
"""Titles of the processes that train."""


@dataclass
class Job:
    """A training or a search as a user runs it: started, ended by a fault, resumed."""

    script: str
    arguments: Sequence[object]
    environment: dict[str, str]
    folder: Path
    """The experiment's."""
    log: Path
    """What all its drivers print."""
    prefix: Sequence[str] = ()
    """A command that runs it, like `env`."""
    driver: subprocess.Popen | None = field(default=None, init=False)

    def start(self) -> None:
        """Starts it, or goes on with it."""
        command = [*self.prefix, sys.executable, f"jobs/{self.script}", *map(str, self.arguments)]
        if (self.folder / "experiment.json").exists():
            command.append("--resume")
        with self.log.open("ab") as output:
            self.driver = subprocess.Popen(
                command,
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def is_over(self) -> bool:
        return self.driver is None or self.driver.poll() is not None

    def wait(self, timeout: float = 240) -> int:
        """Its exit status."""
        wait_until(self.is_over, timeout, self.printed)
        return self.driver.wait()

    def interrupted(self) -> list[Path]:
        """Folders of the states that trainings left that were asked to stop."""
        found = (self.folder / "ray" / "interrupted").rglob("checkpoint.json")
        return sorted(file.parent for file in found)

    def workers(self, server: RayServer) -> list[psutil.Process]:
        """The processes that train, the oldest first."""
        return sorted(server.named(WORKERS[self.script]), key=lambda p: p.create_time())

    def await_epochs(self, count: int = 1, timeout: float = 150) -> None:
        """Waits until `count` more epochs are stored, or the job is over."""
        for _ in range(count):
            before = self.stored()
            wait_until(lambda b=before: self.stored() > b or self.is_over(), timeout, self.printed)

    def stored(self) -> float:
        """When the latest checkpoint was stored, as the time of day; 0: none was yet."""
        times = [0.0]
        for path in checkpoints(self.folder):
            with contextlib.suppress(FileNotFoundError):
                times.append((path / "checkpoint.json").stat().st_mtime)
        return max(times)


def kill(process: psutil.Process) -> None:
    """kill -9, and waits until it is gone."""
    process.kill()
    process.wait(30)


def hang(process: psutil.Process) -> None:
    """It does nothing any more, and does not know it."""
    process.send_signal(signal.SIGSTOP)


def await_watchdog(process: psutil.Process, timeout: float) -> None:
    """Waits until somebody has ended it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(timeout)


@contextlib.contextmanager
def gone(folder: Path) -> Iterator[None]:
    """A folder is away meanwhile, as if its server were; what is made in its place is lost."""
    away = folder.with_name(f"{folder.name}.away")
    folder.rename(away)
    try:
        yield
    finally:
        while away.exists():  # somebody may be writing just now
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                away.rename(folder)


class Disk:
    """A disk of 400 MB that only the processes started by `prefix` see: as a mount of its own it
    can be full or read-only."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where it is mounted. Raises OSError if this machine lets no process mount."""
        folder.mkdir(parents=True)
        self._folder = folder
        mount = f"mount -t tmpfs -o size=400m none {folder} && mkdir {folder}/runs && echo ready"
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} && exec sleep 86400"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise OSError("this machine lets no process mount anything")
        pid = str(self._holder.pid)
        enter = ["nsenter", "-t", pid, "--user", "--mount", "--preserve-credentials"]
        self.prefix = [*enter, "sh", "-c", f'cd {ROOT} && exec "$@"', "sh"]
        self.storage = folder / "runs"
        self.seen = Path(f"/proc/{pid}/root{self.storage}")
        """The storage, as those see it who are outside."""

    def close(self) -> None:
        """The disk is gone."""
        self._holder.kill()
        self._holder.wait()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Takes all that is left of it."""
        filler = self.seen.parent / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 14))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Read-only for whoever opens a file meanwhile."""
        path = str(self.storage)
        self._run(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}")
        try:
            yield
        finally:
            self._run(f"umount -l {path}")

    def _run(self, command: str) -> None:
        subprocess.run([*self.prefix, "sh", "-c", command], check=True)


def remaining_processes(server: RayServer) -> list[str]:
    """Titles of what a job should not have left: trainings, and what leads or watches them."""
    titles = [title_of(process) for process in server.processes()]
    mine = "ray::RayTrain", "ray::ImplicitFunc", "ray::TrainController", "ray::_Janitor"
    return [t for t in titles if t.startswith(mine) or "watchdog.py" in t]


def remaining_placement_groups(server: RayServer) -> list[str]:
    """Those that still hold resources."""
    groups = server.listed("placement-groups")
    return [group["placement_group_id"] for group in groups if group["state"] != "REMOVED"]


def assert_nothing_remains(server: RayServer) -> None:
    """No process and no placement group of any job, half a minute after the last one."""
    wait_until(
        lambda: not remaining_processes(server) and not remaining_placement_groups(server),
        30,
        lambda: f"{remaining_processes(server)}, {remaining_placement_groups(server)}",
    )


def logs_with(server: RayServer, text: str) -> list[str]:
    """Contents of Ray's logs that have `text` in them."""
    contents = []
    for path in (server.folder / "session_latest" / "logs").glob("worker-*"):
        content = path.read_text(errors="replace")
        if text in content:
            contents.append(content)
    return contents


def running_environment(environment: dict[str, str]) -> dict[str, str]:
    """With what makes Ray answer soon."""
    return {**environment, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "PYTHONUNBUFFERED": "1"}


def is_alive(pid: int) -> bool:
    """Whether a process is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
