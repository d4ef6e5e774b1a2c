"""Does faults of all kinds, at random moments, to trainings and searches, and checks what is left.

python tests/integration/chaos.py [--faults 50] [--seed 0] [--out benchmarks/chaos]

Each job runs on a Ray of two nodes of one core. Whenever it has stored another epoch, the next
fault is done to it after a random while; a job whose driver was ended is resumed. At the end each
training must have the weights and metrics, bit for bit, that it has without a fault, and each
search every trial once. Ends with status 1 and says what is wrong, if anything is.
"""

import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import tyro
from chaos_faults import (
    ENDS_DRIVER,
    ENDS_WORKER,
    FROM_ITS_END,
    HUGE,
    INJECTIONS,
    LATEST_S,
    MOST_LOST_WORKERS,
    NEEDS_DISK,
    OUT_OF_MEMORY,
    RECOVERED_WITHIN_S,
    TRAINING,
    TRIALS,
    Arena,
    training_of,
)
from chaos_table import Fault, Figures, as_markdown
from clusters import start_ray
from comparisons import differences_to_undisturbed, finished_trials, wrong_in_search
from injections import Disk, Job, remaining_placement_groups, remaining_processes
from outcomes import checkpoints
from running import RAY, read_json
from voc_files import write_voc

from ssd_dist.provenance import cpu_name, git_commit


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Do faults to trainings and searches, and check what is left."""

    faults: int = 50
    """How many, at least."""
    seed: int = 0
    """Of their order and moments."""
    out: Path = Path("benchmarks/chaos")
    """Where the table goes: `.json` and `.md` are appended."""


class Kinds:
    """The kinds of faults in random order, each as often as the others."""

    def __init__(self, arena: Arena) -> None:
        self._all = [kind for kind in INJECTIONS if arena.disk or kind not in NEEDS_DISK]
        self._random, self._left = arena.random, []

    def next(self, *, worker_may_end: bool) -> str:
        if not self._left:
            self._left = self._random.sample(self._all, len(self._all))
        fitting = [k for k in self._left if worker_may_end or k not in ENDS_WORKER]
        if not fitting:
            return self._random.choice(sorted(set(self._all) & ENDS_DRIVER))
        self._left.remove(fitting[0])
        return fitting[0]


def run(arena: Arena, job: Job, kinds: Kinds, num_faults: int) -> tuple[list[Fault], list[str]]:
    """Runs a job to its end, with faults until there are `num_faults`; what is wrong with it."""
    faults: list[Fault] = []
    finished: dict[int, tuple[object, ...]] = {}
    num_lost = 0
    job.start()
    while True:
        job.await_epochs(timeout=RECOVERED_WITHIN_S)
        if len(faults) < num_faults:
            time.sleep(arena.random.uniform(0, LATEST_S))
        elif not job.is_over():
            job.wait(600)
        if job.is_over():
            if job.driver.returncode == 0:
                break
            return faults, [f"{job.folder.name} ended: {job.printed().splitlines()[-1]}"]
        kind = kinds.next(worker_may_end=num_lost < MOST_LOST_WORKERS)
        num_lost = 0 if kind in ENDS_DRIVER else num_lost + (kind in ENDS_WORKER)
        if job.script == "tune.py":
            finished = finished_trials(job.folder)
        fault = injected(arena, job, kind)
        faults.append(fault)
        print(f"{len(faults):>3} of {num_faults} left: {job.script} {fault.line()}", flush=True)
    return faults, wrong_in(arena, job, finished)


def injected(arena: Arena, job: Job, kind: str) -> Fault:
    """Does a fault to a job, and waits until it has stored an epoch again."""
    came = time.time()
    began = {}
    for worker in job.workers(arena.server):
        with contextlib.suppress(psutil.NoSuchProcess):
            began[training_of(worker)] = worker.create_time()
    lost_by = INJECTIONS[kind](arena, job)
    over = time.time()
    lost = epochs_lost(job, lost_by, came, began)
    end = over + RECOVERED_WITHIN_S
    while job.stored() <= over and not job.is_over() and time.time() < end:
        time.sleep(0.1)
    recovered = job.stored() > over or job.driver.poll() == 0
    seconds = time.time() - (over if kind in FROM_ITS_END else came)
    return Fault(kind, job.script, recovered, seconds if recovered else None, lost)


def epochs_lost(
    job: Job, trainings: set[str] | None, came: float, began: dict[str, float]
) -> float:
    """Of the trainings that lost their worker, the most that may have to be done again: the time
    from what was stored last, or from when the worker `began`, in epochs."""
    stored: dict[str, list[tuple[float, Path]]] = {}
    for path in (*checkpoints(job.folder), *job.interrupted()):
        name = next((part for part in path.parts if part.startswith("trial-")), TRAINING)
        with contextlib.suppress(OSError):
            stored.setdefault(name, []).append(((path / "checkpoint.json").stat().st_mtime, path))
    lost = 0.0
    for name, states in stored.items():
        when, path = max(states)
        with contextlib.suppress(OSError, ValueError):
            description = read_json(path / "checkpoint.json")
            over = description["epoch"] == description["config"]["epochs"]
            hit = name in began and (trainings is None or name in trainings)
            if hit and not over and description["metrics"]:
                worked = came - max(when, began[name])
                lost = max(lost, worked / description["metrics"]["seconds"])
    return lost


def wrong_in(arena: Arena, job: Job, finished: dict[int, tuple[object, ...]]) -> list[str]:
    """What is wrong with a job that has ended well."""
    name = job.folder.name
    data = str(arena.data)
    by_training: dict[str, list[Path]] = {}
    for path in checkpoints(job.folder):
        by_training.setdefault(path.parent.name, []).append(path)
    if job.script == "train.py":
        [kept] = by_training.values()
        return [f"{name}: {d}" for d in differences_to_undisturbed(kept, data, arena.folder)]
    wrong = wrong_in_search(job.folder, finished, TRIALS)
    for trial in read_json(job.folder / "trials.json"):
        huge = trial["parameters"]["model.neck_channels"] == HUGE
        if trial["state"] != ("failed" if huge else "complete"):
            wrong.append(f"trial {trial['number']} is {trial['state']}: {trial['error']}")
        elif not huge:
            kept = [p for p in checkpoints(job.folder) if f"trial-{trial['number']:04d}" in p.parts]
            wrong += differences_to_undisturbed(kept, data, arena.folder)
    return [f"{name}: {text}" for text in wrong]


def out_of_memory(job: Job) -> list[Fault]:
    """The trials of a search that ran out of memory: it went on, and told so."""
    trials = read_json(job.folder / "trials.json") if job.script == "tune.py" else []
    return [
        Fault(OUT_OF_MEMORY, job.script, str(trial["error"]).startswith(OUT_OF_MEMORY), None, 0.0)
        for trial in trials
        if trial["parameters"]["model.neck_channels"] == HUGE
    ]


def main(arguments: Arguments) -> Figures:
    """Runs jobs and does faults to them until there are enough."""
    began = time.perf_counter()
    faults: list[Fault] = []
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssd_dist_chaos_")))
        disk = None
        try:
            disk = Disk(folder / "disk")
            stack.callback(disk.close)
        except OSError as error:
            print(f"{error}: no disk will be full or read-only")
        environment = environment_in(folder)
        prefix = disk.prefix if disk else []
        server = stack.enter_context(start_ray(environment, num_cpus=1, prefix=prefix))
        chosen = random.Random(arguments.seed)
        data = write_voc(folder / "VOC")
        arena = Arena(server, disk, folder, data, chosen, itertools.count())
        kinds = Kinds(arena)
        for make in itertools.cycle([arena.training, arena.search]):
            job = make()
            left = arguments.faults - len(faults)
            done, found = run(arena, job, kinds, left)
            faults += done
            wrong += found
            if not found:
                faults += out_of_memory(job)
            if len(faults) >= arguments.faults or found:
                break
        time.sleep(15)
        remaining = remaining_processes(server) + remaining_placement_groups(server)
        wrong += [f"left behind: {one}" for one in remaining]
    minutes = (time.perf_counter() - began) / 60
    return Figures(faults, wrong, arguments.seed, cpu_name(), git_commit(), minutes)


def environment_in(folder: Path) -> dict[str, str]:
    """Environment of its processes: no Ray but their own, and caches of their own."""
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "SSD_DIST_CACHE": str(folder / "cache"),
    }


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    figures = main(arguments)
    print("\n".join(figures.wrong))
    if not figures.faults:
        sys.exit(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(asdict(figures), indent=2) + "\n")
    arguments.out.with_suffix(".md").write_text(as_markdown(figures))
    print(as_markdown(figures))
    sys.exit(1 if figures.num_wrong else 0)
