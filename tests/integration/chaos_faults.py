"""The jobs of chaos, and the faults that it does to them."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from clusters import RayServer
from injections import Disk, Job, await_watchdog, gone, hang, kill, running_environment
from running import wait_until

TRAINING_EPOCHS, TRIAL_EPOCHS, TRIALS = 90, 60, 6
TRAINING = "training"
HUGE = 10**12
"""Channels that no machine has the memory for."""
HANG_TIMEOUT_S = 15
OUTAGE_S = 2.0, 12.0
LATEST_S = 3.0
"""When a fault comes, at most, after an epoch was stored."""
MOST_LOST_WORKERS = 2
"""By one driver: a training gives up after four, a trial after three."""
RECOVERED_WITHIN_S = 240.0
CONFIG = {
    "lr": 1e-3,
    "global_batch_size": 1,
    "model": {
        "backbone": "test_resnet.r160_in1k",
        "image_size": 64,
        "feature_strides": [8, 16],
        "neck_channels": 16,
        "num_extra_maps": 0,
        "dropout": 0.2,
    },
    "optimizer": {"name": "adamw", "ema_decay": 0.9},
}


@dataclass
class Arena:
    """Where jobs run: a Ray of two nodes, and a disk that can fail, if this machine lets it."""

    server: RayServer
    disk: Disk | None
    folder: Path
    data: Path
    random: random.Random
    names: Iterator[int]

    def __post_init__(self) -> None:
        self.server.add_node(1, prefix=self.prefix)

    @property
    def prefix(self) -> list[str]:
        return self.disk.prefix if self.disk else []

    def job(self, script: str, config: dict, *flags: object) -> Job:
        """A job that is not yet started."""
        name = f"job-{next(self.names)}"
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        storage = self.disk.storage if self.disk else self.folder
        arguments = ["--config", path, "--data", self.data, "--storage", storage, "--name", name]
        return Job(
            script,
            [*arguments, "--hang-timeout", HANG_TIMEOUT_S, *flags],
            running_environment(self.server.environment),
            (self.disk.seen if self.disk else self.folder) / name,
            self.folder / f"{name}.log",
            prefix=self.prefix,
        )

    def training(self) -> Job:
        config = {**CONFIG, "epochs": TRAINING_EPOCHS}
        return self.job("train.py", config, "--workers", 1)

    def search(self) -> Job:
        """Six trials; two of them are too large for any memory."""
        space = {
            "model.neck_channels": {"choices": [16, 24, HUGE]},
            "lr": {"choices": [1e-4, 1e-3]},
        }
        search = {
            "space": space,
            "trials": TRIALS,
            "sampler": "grid",
            "pruner": "none",
            "repeats": {"top_k": 0},
        }
        return self.job("tune.py", {**CONFIG, "epochs": TRIAL_EPOCHS, "search": search})


# Each does a fault to a job, returns when it is over, and says which trainings lost their worker;
# None: all that were under way.
Injection = Callable[[Arena, Job], set[str] | None]


def a_worker(arena: Arena, job: Job) -> tuple[psutil.Process, set[str]]:
    """One of the processes that train, and what; waited for, as it may be on its way."""
    wait_until(lambda: job.workers(arena.server) or job.is_over(), 120, job.printed)
    worker = arena.random.choice(job.workers(arena.server))
    return worker, {training_of(worker)}


def training_of(worker: psutil.Process) -> str:
    """What a process trains: its trial's name, or TRAINING."""
    name = Path(worker.cwd()).name
    return name if name.startswith("trial-") else TRAINING


def kill_worker(arena: Arena, job: Job) -> set[str] | None:
    worker, training = a_worker(arena, job)
    kill(worker)
    return training


def hang_worker(arena: Arena, job: Job) -> set[str] | None:
    for _ in range(3):
        worker, training = a_worker(arena, job)
        hang(worker)
        if is_watched(worker):
            with contextlib.suppress(psutil.TimeoutExpired):
                await_watchdog(worker, HANG_TIMEOUT_S + 30)
                return training
        # One that has not made a step yet is given half an hour, and one whose training is over is
        # not watched: neither is a worker that hangs in its training.
        worker.send_signal(signal.SIGCONT)
        time.sleep(3.0)
    raise AssertionError(f"{worker}: its watchdog did not end it")


def is_watched(worker: psutil.Process) -> bool:
    return any("watchdog.py" in " ".join(child.cmdline()) for child in worker.children())


def terminate_worker(arena: Arena, job: Job) -> set[str] | None:
    worker, training = a_worker(arena, job)
    worker.terminate()
    worker.wait(60)
    return training


def kill_node(arena: Arena, job: Job) -> set[str] | None:
    [node] = arena.server.nodes
    arena.server.kill_node(node)
    arena.server.add_node(1, prefix=arena.prefix)
    return None


def kill_driver(arena: Arena, job: Job) -> set[str] | None:
    kill(job.driver)
    job.start()
    return None


def terminate_driver(arena: Arena, job: Job) -> set[str] | None:
    job.driver.terminate()
    job.wait(60)
    job.start()
    return None


def storage_gone(arena: Arena, job: Job) -> set[str] | None:
    with gone(job.folder):
        time.sleep(arena.random.uniform(*OUTAGE_S))
    return set()


def storage_read_only(arena: Arena, job: Job) -> set[str] | None:
    with arena.disk.read_only():
        time.sleep(arena.random.uniform(*OUTAGE_S))
    return set()


def disk_full(arena: Arena, job: Job) -> set[str] | None:
    with arena.disk.full():
        job.wait(RECOVERED_WITHIN_S)
    job.start()
    return None


INJECTIONS: dict[str, Injection] = {
    "kill -9 of a worker": kill_worker,
    "a worker hangs": hang_worker,
    "SIGTERM to a worker": terminate_worker,
    "kill -9 of a node": kill_node,
    "kill -9 of the driver": kill_driver,
    "SIGTERM to the driver": terminate_driver,
    "storage gone": storage_gone,
    "storage read-only": storage_read_only,
    "disk full": disk_full,
}
ENDS_WORKER = set(list(INJECTIONS)[:4])
ENDS_DRIVER = {"kill -9 of the driver", "SIGTERM to the driver", "disk full"}
NEEDS_DISK = {"storage read-only", "disk full"}
FROM_ITS_END = {"storage gone", "storage read-only", "disk full"}
"""Faults after which a job can go on only once they are over: the time to recover starts there."""
OUT_OF_MEMORY = "out of memory"
